"""The words of a tokenizer: the forms of yes and no, and texts the model could not read as they are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

YES_FORMS = ("Yes", " Yes", "yes", " yes")
NO_FORMS = ("No", " No", "no", " no")
REMEMBERED = 16_384
"""Most texts whose ids are kept: a prompt comes back with each of its candidates, and in each epoch."""


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text alone, without what a template adds."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def single_tokens(tokenizer: Any, forms: Sequence[str], name: str) -> list[int]:
    """Ids of the forms of a word that are one token each, sorted.

    Raises:
        ValueError: There is none.
    """
    ids = {ids[0] for form in forms if len(ids := ids_of(tokenizer, form)) == 1}
    ids.discard(tokenizer.unk_token_id)
    if not ids:
        raise ValueError(f"the tokenizer has no single token for {name!r}; this checkpoint cannot judge")
    return sorted(ids)


def special_words(tokenizer: Any) -> tuple[str, ...]:
    """What stands for itself in a template and must not occur in a text."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def check_words(tokenizer: Any, marks: Sequence[str], what: str, text: str, ids: Sequence[int]) -> None:
    """Refuses what the model would read as nothing, or as a part of the template.

    Args:
        tokenizer: Whose words they are.
        marks: Its ``special_words``.
        what: What the text is, for the message.
        text: The text.
        ids: What became of it, alone or in its template.

    Raises:
        ValueError: The text holds a mark, or a word the tokenizer does not know.
    """
    for mark in marks:
        if mark in text:
            raise ValueError(f"{what} {shown(text)}: {mark!r} is a mark of the model's template; remove it")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        # where no word is unknown, it is a character between two words
        parts = (*text.split(), *(char for char in text if not char.isalnum()))
        word = next((part for part in parts if unknown in ids_of(tokenizer, part)), text)
        raise ValueError(f"{what} {shown(text)}: the model has no word {shown(word)}; reword it")


def shown(text: str, limit: int = 60) -> str:
    """A text as messages quote it: shortened, with what cannot be seen written out."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
