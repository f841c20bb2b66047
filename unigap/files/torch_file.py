"""Write torch files in a stream, and read them through a memory map, so that no second copy is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unigap.files.durable import replacing


def write_torch(content: Any, path: Path) -> None:
    """Write a file as ``torch.save`` does, one tensor after another, durably and atomically.

    One writer at a time: what a killed one leaves behind is overwritten.

    Raises:
        OSError: It cannot be written; ``path`` is unchanged.
    """
    with replacing(path, path.with_name(f".{path.name}.tmp")) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch then closes its archive, which fails too and hides the reason
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_torch(path: Path, weights_only: bool = True) -> Any:
    """Return the content of a torch file; its tensors are read from the file when they are used.

    Args:
        path: The file.
        weights_only: Accept tensors and plain values only; otherwise code in the file is run.

    Raises:
        Exception: The file is damaged or holds other things; torch's errors have no common class.
    """
    return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
