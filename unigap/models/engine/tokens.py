"""Token ids of a tokenizer: the forms of yes and no, and texts it cannot represent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

YES_FORMS = ("Yes", " Yes", "yes", " yes")
NO_FORMS = ("No", " No", "no", " no")
CACHED_TEXTS = 16_384
"""Maximum number of texts whose ids are cached."""


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text without special tokens."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def single_tokens(tokenizer: Any, forms: Sequence[str], name: str) -> list[int]:
    """Return the sorted ids of the forms of a word that are single tokens.

    Raises:
        ValueError: No form is a single token.
    """
    ids = {ids[0] for form in forms if len(ids := ids_of(tokenizer, form)) == 1}
    ids.discard(tokenizer.unk_token_id)
    if not ids:
        raise ValueError(f"the tokenizer has no single token for {name!r}; this checkpoint cannot judge")
    return sorted(ids)


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the special tokens, which must not occur in a text."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def check_text(tokenizer: Any, marks: Sequence[str], kind: str, text: str, ids: Sequence[int]) -> None:
    """Refuse a text with special tokens of the template or unknown words.

    Args:
        tokenizer: The tokenizer.
        marks: Its ``special_tokens``.
        kind: ``prompt`` or ``question``, for the message.
        text: The text.
        ids: Ids of the text, alone or in its template.

    Raises:
        ValueError: The text holds a special token, or a word the tokenizer does not know.
    """
    for mark in marks:
        if mark in text:
            raise ValueError(f"{kind} {quoted(text)}: {mark!r} is a special token of the model's template; remove it")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        # if no word is unknown alone, the unknown token is a character between two words
        parts = (*text.split(), *(char for char in text if not char.isalnum()))
        word = next((part for part in parts if unknown in ids_of(tokenizer, part)), text)
        raise ValueError(f"{kind} {quoted(text)}: the model has no word {quoted(word)}; reword it")


def quoted(text: str, limit: int = 60) -> str:
    """Return a text quoted for a message: shortened, with invisible characters escaped."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
