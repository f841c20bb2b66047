"""Checks of ``--out``: a command may replace its own earlier output and no other file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unigap.files.durable import write_durable
from unigap.files.outside import special_kind

POOL_FILE = "pool.json"
"""File that marks a folder as a pool; no command writes its output into a pool."""
MAX_BYTES = 16 * 2**20
"""Maximum size in bytes of a file that can be an earlier output."""
PAGE_MARKS = (
    b'<meta name="generator" content="unigap">',
    # pages of earlier versions, by a line that each of them has
    b"content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
)
HEAD_BYTES = 4096


def check_output(path: Path, option: str, wanted: str, is_ours: Callable[[bytes], bool]) -> None:
    """Check that a file may be written: it does not exist, is empty, or is an earlier output of the same kind.

    Args:
        path: The file to write.
        option: The option that names it, for messages.
        wanted: The kind of output, for messages.
        is_ours: Function that tells from the content of a file whether it is of that kind.

    Raises:
        ValueError: Another file exists there, or it is in a pool.
    """
    named = f"{option} {str(path)!r}"
    if path.is_symlink():
        raise ValueError(f"{named} is a symbolic link; give the name of {wanted}")
    refuse_inside_pool(path, option)
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    kind = special_kind(status.st_mode)
    if kind:
        raise ValueError(f"{named} is {kind}; give the name of {wanted}")
    if status.st_size and (status.st_size > MAX_BYTES or not is_ours(path.read_bytes())):
        raise ValueError(f"{named} holds something else than {wanted} of unigap and stays as it is; give another name")


def refuse_inside_pool(path: Path, option: str) -> None:
    """Check that a path is not in a pool; a foreign file would count as damage.

    Raises:
        ValueError: The path is a pool or in one.
    """
    for folder in (target := Path(os.path.realpath(path)), *target.parents):
        if (folder / POOL_FILE).exists():
            raise ValueError(f"{option} {str(path)!r} lies in the pool {folder}; give a place outside it")


def check_figures(out: str, option: str = "--out") -> None:
    """Check that ``out`` can be written as a JSON file of figures, see `check_output`.

    Raises:
        ValueError: It cannot.
    """
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option} {out!r} is no file in a folder that exists; give the name of a JSON file")
    check_output(path, option, "a JSON file of figures", is_figures)


def write_figures(out: str, figures: Mapping[str, Any]) -> None:
    """Write estimates as JSON, atomically.

    Args:
        out: The file, see `check_figures`.
        figures: ``Estimate.to_dict()`` by name, or by name and group.
    """
    write_durable(Path(out), json.dumps(figures, indent=1).encode())


def is_figures(data: bytes) -> bool:
    """Whether the bytes were written by `write_figures`."""
    try:
        return _holds_estimates(json.loads(data))
    except (ValueError, RecursionError):
        return False


def is_page(data: bytes) -> bool:
    """Whether the bytes are a page of ``unigap report`` or ``unigap compare``."""
    return any(mark in data[:HEAD_BYTES] for mark in PAGE_MARKS)


def _holds_estimates(found: Any) -> bool:
    if not isinstance(found, dict) or not found:
        return False
    return found.keys() == {"value", "low", "high", "n"} or all(map(_holds_estimates, found.values()))
