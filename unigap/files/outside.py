"""Reads files that come from outside: a plain file of a bounded size, or one line that says what is wrong."""

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
    """Read a whole file without waiting and without filling memory.

    Args:
        path: The file; a symbolic link is followed.
        named: What messages call it, e.g. ``"prompts 'mine.txt'"``.
        wanted: What the user should give instead, e.g. ``"a .jsonl file"``.
        most: Largest size in bytes.

    Returns:
        Its bytes.

    Raises:
        ValueError: There is no such file, it is a folder, pipe, socket or device, it is larger than ``most``, or it
            cannot be read.
    """
    try:
        # O_NONBLOCK: opening a pipe would otherwise wait until somebody writes into it
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
    """Read a whole UTF-8 file, see `read_outside`; a byte-order mark at its start is left out.

    Raises:
        ValueError: As `read_outside`, or the file is not UTF-8.
    """
    try:
        text = read_outside(path, named, wanted, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{named}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_special(path: str | Path, named: str, wanted: str, most: int | None = None) -> None:
    """Make sure that a path names no pipe, socket, device or huge file, before a library opens it.

    Args:
        path: The path; nothing may lie there, which the library will say.
        named: What messages call it.
        wanted: What the user should give instead.
        most: Largest size in bytes, if there is one.

    Raises:
        ValueError: It names one.
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
    """What a file is by its ``st_mode`` where it is no plain file, e.g. ``"a pipe"``; ``""`` for a plain file."""
    return next((name for is_kind, name in KINDS if is_kind(mode)), "")


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 2**20 else f"{count >> 10} KiB"
