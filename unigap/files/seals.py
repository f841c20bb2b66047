"""Detect damage to plain files that other programs also read, by digests in a separate file.

``seals.json`` in a folder holds the sha256 of each sealed file of that folder. While a file is replaced, it holds the
old and the new digest, so a kill at any point leaves both files valid.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unigap.files.durable import digest, file_digest, make_folder, seal, unseal, write_durable
from unigap.files.plain import read_plain
from unigap.files.writer_lock import WriterLock

SEALS = "seals.json"
Digests = dict[str, list[str]]
"""Valid digests by file name."""


def write_sealed(path: Path, data: bytes) -> None:
    """Write a file and its digest durably; a kill leaves either the old or the new file.

    Raises:
        ValueError: The seals of the folder are damaged, or another process keeps writing the folder.
        OSError: It cannot be written; the old file stays.
    """
    make_folder(path.parent)
    with WriterLock(path.parent):
        digests = _digests(path.parent)
        fresh, old = digest(data), digests.get(path.name) or ([file_digest(path)] if path.is_file() else [])
        _write(path.parent, digests | {path.name: [*old, fresh]})
        write_durable(path, data)
        _write(path.parent, digests | {path.name: [fresh]})


def read_sealed(path: Path) -> bytes:
    """Read a file and check every byte; a file without a seal is read without a check.

    Raises:
        ValueError: It has a seal but is missing or altered, or it is no regular file.
        OSError: It does not exist or cannot be read.
    """
    for _ in range(3):  # a writer may replace the file between the two reads
        known = _digests(path.parent).get(path.name)
        try:
            data = read_plain(path)
        except FileNotFoundError:
            if known is None:
                raise
            raise ValueError(f"{path} is missing though {SEALS} names it; restore it") from None
        if known is None or digest(data) in known:
            return data
    raise ValueError(
        f"{path} is damaged or was edited: it does not match its sha256 in {SEALS}; restore it, or delete "
        f"{path.parent / SEALS} to use it as it is"
    )


def is_sealed(path: Path) -> bool:
    """Whether a file has a seal, so that its change or loss is detected.

    Raises:
        ValueError: The seals of its folder are damaged.
    """
    return path.name in _digests(path.parent)


def was_written(path: Path) -> bool:
    """Whether a file exists or has a seal."""
    return path.exists() or is_sealed(path)


def warn_unsealed(path: Path) -> None:
    """Print a warning if a file exists without a seal, as files of earlier versions do."""
    if path.exists() and not is_sealed(path):
        print(f"warning: {path} carries no seal, so damage to it would not be noticed", file=sys.stderr)


def _digests(folder: Path) -> Digests:
    path = folder / SEALS
    if not path.exists():
        return {}
    digests = unseal(path).content
    if not all(isinstance(known, list) for known in digests.values()):
        raise ValueError(f"{path} does not list digests by file; restore it")
    return digests


def _write(folder: Path, digests: Digests) -> None:
    write_durable(folder / SEALS, seal(digests))
