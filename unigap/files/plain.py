"""Read regular files of a bounded size; refuse pipes and devices instead of waiting for them."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from unigap.files.outside import special_kind

MOST_TEXT = 64 * 2**20
"""Maximum size in bytes of a JSON or YAML file; parsing takes about twenty times as much memory."""


def check_plain(path: Path) -> None:
    """Check that a path is a regular file, or a link to one.

    Raises:
        ValueError: It is a pipe, a socket or a device.
        OSError: It does not exist, is a folder or cannot be reached.
    """
    mode = path.stat().st_mode
    kind = special_kind(mode)
    if kind and not stat.S_ISDIR(mode):
        raise ValueError(f"{path} is {kind}, not a regular file; put the file back")


def open_plain(path: Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
        ValueError: It is a pipe, a socket or a device.
        OSError: It does not exist or cannot be opened.
    """
    check_plain(path)
    # O_NONBLOCK: if a pipe replaces the file after the check, opening it does not wait for a writer
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def read_plain(path: Path, most: int = MOST_TEXT) -> bytes:
    """Read a whole regular file.

    Args:
        path: The file.
        most: Maximum size in bytes.

    Raises:
        ValueError: It is no regular file, or larger than ``most``.
        OSError: It does not exist or cannot be read.
    """
    with open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path} is larger than {most >> 20} MiB, which no sound file of its kind is; restore it")
    return data
