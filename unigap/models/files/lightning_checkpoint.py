"""Open a Lightning checkpoint file without running code in it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.console import tasks
from unigap.files.torch_file import read_torch
from unigap.models.files.shards import SHARDS, gather, shard_file
from unigap.models.files.weights import first_not_finite


def open_lightning(path: str, option: str) -> dict[str, Any]:
    """Return the content of a Lightning checkpoint; no code in it is run.

    The whole file, and its shards if there are any, are read once, in blocks, to compare checksums. Tensors are
    memory-mapped, but weights in shards are put together in memory.

    Args:
        path: The file.
        option: The command-line option that names it, for the message.

    Raises:
        ValueError: The path is a URL; the file is missing or damaged, holds other than the plain values of a Lightning
            checkpoint, or holds weights that are not finite.
    """
    if "://" in path:
        raise ValueError(f"{option} {path!r} is a URL; download it and give the file")
    if not Path(path).is_file():
        raise ValueError(f"{option} {path!r}: no such file; give the .ckpt file of an earlier run")
    with tasks.task("loading", f"checking {path}"):
        fault = _zip_fault(Path(path))
    if fault:
        raise ValueError(f"{option} {path!r} is damaged: {fault}; nothing in it was run, take another")
    try:
        content = read_torch(Path(path))
    except Exception as error:  # damaged bytes raise exceptions without a common class
        raise ValueError(
            f"{option} {path!r}: damaged, or more than tensors and plain values; nothing in it was run, take another"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "pytorch-lightning_version"} <= content.keys():
        raise ValueError(f"{option} {path!r} is not a Lightning checkpoint; give the .ckpt file of an earlier run")
    if SHARDS in content:
        content["state_dict"] = _gathered(content, path, option)
    broken = first_not_finite(content["state_dict"])
    if broken:
        raise ValueError(f"{option} {path!r}: the weights {broken!r} are not finite; take an earlier checkpoint")
    return content


def _gathered(content: Mapping[str, Any], path: str, option: str) -> Any:
    """Return the weights of a checkpoint in shards, whole."""
    folder, count = Path(path).parent / content[SHARDS]["folder"], content[SHARDS]["files"]
    for file in (shard_file(folder, rank) for rank in range(count)):
        fault = _zip_fault(file) if file.is_file() else "it is missing"
        if fault:
            raise ValueError(f"{option} {path!r} is damaged in its part {str(file)!r}: {fault}; take another")
    return gather(content["state_dict"], folder, count)


def _zip_fault(path: Path) -> str | None:
    """Describe a fault in the bytes of a file that torch saved; ``None`` if there is none, or it is not a zip file."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores uncompressed; a compressed entry could unpack to any size
            packed = next((part.filename for part in archive.infolist() if part.compress_type), None)
            broken = packed or archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        return str(error)
    return f"the checksum of its part {broken!r} does not match" if broken else None
