"""Files that stay plain for other programs, and whose every change is noticed: digests kept beside them.

``seals.json`` in a folder holds the sha256 of each sealed file of that folder. While a file is replaced it holds the
old and the new digest, so a kill at any point leaves both files sound.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unigap.files.durable import digest, file_digest, make_folder, seal, unseal, write_durable
from unigap.files.plain import read_plain
from unigap.files.writer_lock import WriterLock

SEALS = "seals.json"
Digests = dict[str, list[str]]
"""The digests a file may have, by its name."""


def write_sealed(path: Path, data: bytes) -> None:
    """Write a file and its digest durably; killed meanwhile, the old file stays or the new one is there.

    Raises:
        ValueError: The seals of the folder are damaged, or another process is writing it and does not come to an end.
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
    """Read a file and check every byte of it; one that was written without a seal is read as it is.

    Raises:
        ValueError: It is missing though it was written, is not as it was written, or is no regular file.
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
    """Whether a change of a file, or its loss, would be noticed.

    Raises:
        ValueError: The seals of its folder are damaged.
    """
    return path.name in _digests(path.parent)


def was_written(path: Path) -> bool:
    """Whether there is a file, or there was one when its folder was sealed."""
    return path.exists() or is_sealed(path)


def warn_unsealed(path: Path) -> None:
    """Say so in one line if a file that is there carries no seal, as those of earlier versions."""
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
