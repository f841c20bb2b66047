"""Read the configs and the tokenizer of a checkpoint in a layout without a transformers class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unigap.console.quiet import quiet_transformers
from unigap.models.files.bounds import check_counts
from unigap.models.files.config import read_object
from unigap.models.files.tokens import check_has


def read_part(checkpoint: str, folder: Path, name: str, counts: Sequence[str] = ()) -> dict[str, Any]:
    """Return the config of a part of a checkpoint.

    Args:
        checkpoint: The checkpoint, for messages.
        folder: Its folder.
        name: Name of the file in the folder.
        counts: Entries that must be whole numbers.

    Raises:
        ValueError: The file is not a JSON object, describes too large a network, or an entry is missing.
    """
    config = read_object(checkpoint, folder, name)
    for count in counts:
        if not isinstance(config.get(count), int):
            raise ValueError(f"checkpoint {checkpoint!r}: {name} has no number {count}; restore it")
    check_counts(checkpoint, config, name)
    return config


def read_tokenizer(folder: Path, marks: Sequence[str], embedded: int) -> PreTrainedTokenizerBase:
    """Load a tokenizer, and check that it has the special tokens and no id without an embedding.

    Args:
        folder: Its folder.
        marks: The special tokens.
        embedded: Number of ids with an embedding.

    Raises:
        ValueError: It does not load, or a check fails.
    """
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged file raises exceptions without a common class
        raise ValueError(f"its tokenizer: {error}") from error
    check_has(tokenizer, marks)
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= embedded:
        raise ValueError(f"its tokenizer gives {token!r} the id {highest}, and the weights embed ids below {embedded}")
    return tokenizer
