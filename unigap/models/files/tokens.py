"""Check that a tokenizer belongs to the weights it is stored with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

USED = ("pad_token", "bos_token", "eos_token")
"""Special tokens that prompts, answers and padding need."""


def check_has(tokenizer: Any, marks: Sequence[str]) -> None:
    """Check that a tokenizer has special tokens.

    Raises:
        ValueError: One is missing; names it.
    """
    vocabulary = tokenizer.get_vocab()
    missing = next((mark for mark in marks if mark not in vocabulary), None)
    if missing:
        raise ValueError(f"its tokenizer has no {missing!r}")


def check_tokens(checkpoint: str, tokenizer: Any, embedded: int, image_tokens: list[str]) -> None:
    """Check that every token id has an embedding, and that the pad token is not an image token.

    The pad token may equal the first or the last token of a text, because padding is masked by length.

    Args:
        checkpoint: The checkpoint, for the message.
        tokenizer: Its tokenizer.
        embedded: Number of ids with an embedding.
        image_tokens: The tokens for an image, its start and its end.

    Raises:
        ValueError: A special token is missing, an id is too large, or the pad token is an image token.
    """
    for name in USED:
        if getattr(tokenizer, f"{name}_id") is None:
            raise ValueError(
                f"checkpoint {checkpoint!r}: tokenizer_config.json names no {name} that tokenizer.json has; name one"
            )
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= embedded:
        raise ValueError(
            f"checkpoint {checkpoint!r}: tokenizer.json gives {token!r} the id {highest}, and the weights embed ids "
            f"below {embedded}; take the tokenizer of these weights"
        )
    if tokenizer.pad_token in image_tokens:
        raise ValueError(
            f"checkpoint {checkpoint!r}: tokenizer_config.json pads with {tokenizer.pad_token!r}, an image token; "
            "name another pad_token"
        )
