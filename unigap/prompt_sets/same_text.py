"""Normalised prompt text, by which prompts are compared and clustered."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from unigap.records import Prompt


def normalised(text: str) -> str:
    """Return the form in which two prompts are compared.

    It ignores case, white space, a final full stop, invisible characters and the composition of characters (Unicode
    NFKC, case-folded).

    >>> normalised("A  cafe\u0301.") == normalised("a caf\u00e9")
    True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    return " ".join(visible.split()).rstrip(".").strip()


def prompt_numbers(prompts: Iterable[Prompt]) -> list[int]:
    """Return a bootstrap cluster for each prompt, counted from 0.

    Prompts with the same normalised text share a cluster, even with different ids: they are not independent samples.
    """
    numbers: dict[str, int] = {}
    return [numbers.setdefault(normalised(prompt.text), len(numbers)) for prompt in prompts]
