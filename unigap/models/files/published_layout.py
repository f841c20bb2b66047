"""Read checkpoints in layouts without a transformers class: folder, configs, tensors, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_transformers
from unigap.models.files.bounds import check_counts
from unigap.models.files.location import resolve


def local_folder(checkpoint: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a checkpoint; the files of a hub id are downloaded into the hub's cache if needed.

    Args:
        checkpoint: A folder or a hub id.
        patterns: Names of the files to download, with ``*`` for any text.

    Raises:
        ValueError: It cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    folder = Path(resolve(checkpoint))
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=list(patterns)))
    except Exception as error:  # network and hub errors have no common class
        raise ValueError(
            f"checkpoint {checkpoint!r} cannot be downloaded from the hub: {shortened(str(error))}; download it and "
            "give the folder"
        ) from error


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
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is a list or a single value")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint {checkpoint!r}: {name} is not a JSON object ({error}); restore it") from error
    for count in counts:
        if not isinstance(config.get(count), int):
            raise ValueError(f"checkpoint {checkpoint!r}: {name} has no number {count}; restore it")
    check_counts(checkpoint, config, name)
    return config


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: The file is damaged; names it.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def check_tensors(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Check that there are exactly the expected tensors.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape; names it.
    """
    for name in sorted({*expected, *state}):
        if name not in state or name not in expected:
            raise ValueError(f"the weights {name!r} are {'unknown' if name in state else 'missing'}")
        if state[name].shape != expected[name].shape:
            stored, described = tuple(state[name].shape), tuple(expected[name].shape)
            raise ValueError(f"the weights {name!r} have shape {stored}, the configs say {described}")


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
    vocabulary = tokenizer.get_vocab()
    missing = next((mark for mark in marks if mark not in vocabulary), None)
    if missing:
        raise ValueError(f"its tokenizer has no {missing!r}")
    token, highest = max(vocabulary.items(), key=lambda item: item[1])
    if highest >= embedded:
        raise ValueError(f"its tokenizer gives {token!r} the id {highest}, and the weights embed ids below {embedded}")
    return tokenizer
