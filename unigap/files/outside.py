"""Read files that the user names: plain files of a bounded size, with one-line errors."""

from __future__ import annotations

import os
import stat
from pathlib import Path

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_outside(path: str | Path, named: str, wanted: str, most: int) -> bytes:
    """Read a whole file; never wait for a pipe or fill the memory.

    Args:
        path: The file, or a symbolic link to it.
        named: Name of the file in messages, e.g. ``"prompts 'mine.txt'"``.
        wanted: Remedy in messages, e.g. ``"a .jsonl file"``.
        most: Maximum size in bytes.

    Returns:
        The bytes.

    Raises:
        ValueError: The file does not exist, is a folder, pipe, socket or device, is larger than ``most``, or cannot be
            read.
    """
    try:
        # O_NONBLOCK: otherwise opening a pipe waits for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise ValueError(f"{named}: no such file; give {wanted}") from None
    except OSError as error:
        raise ValueError(f"{named}: cannot be read ({error.strerror}); give {wanted}") from None
    kind = special_kind(os.fstat(descriptor).st_mode)
    if kind:
        os.close(descriptor)
        raise ValueError(f"{named}: no such file, it is {kind}; give {wanted}")
    with os.fdopen(descriptor, "rb") as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise ValueError(f"{named}: cannot be read ({error.strerror}); give {wanted}") from None
    if len(data) > most:
        raise ValueError(f"{named}: larger than {_size(most)}; split it or give {wanted}")
    return data


def read_outside_text(path: str | Path, named: str, wanted: str, most: int) -> str:
    """Read a whole UTF-8 file, see `read_outside`; drop a byte-order mark and normalise line ends.

    Raises:
        ValueError: As for `read_outside`, or the file is not UTF-8.
    """
    try:
        text = read_outside(path, named, wanted, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{named}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_special(path: str | Path, named: str, wanted: str, most: int | None = None) -> None:
    """Refuse a pipe, socket, device or huge file before a library opens it.

    Args:
        path: The path. A missing file passes: the library reports it.
        named: Name of the file in messages.
        wanted: Remedy in messages.
        most: Maximum size in bytes; None for no limit.

    Raises:
        ValueError: The path names one.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return
    kind = special_kind(status.st_mode)
    if kind and not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{named}: no plain file, it is {kind}; give {wanted}")
    if most is not None and status.st_size > most:
        raise ValueError(f"{named}: larger than {_size(most)}; give {wanted}")


def special_kind(mode: int) -> str:
    """Return the kind of a file from its ``st_mode``, e.g. ``"a pipe"``; ``""`` for a plain file."""
    return next((name for is_kind, name in KINDS if is_kind(mode)), "")


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 2**20 else f"{count >> 10} KiB"
