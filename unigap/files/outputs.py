"""Files that ``--out`` names: each replaces what the same command wrote before it, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unigap.files.durable import write_durable
from unigap.files.outside import special_kind

POOL_FILE = "pool.json"
"""Makes a folder a pool; no command writes its output into one."""
MOST_BYTES = 16 * 2**20
"""Larger files are nobody's figures and no page of ours."""
PAGE_MARKS = (
    b'<meta name="generator" content="unigap">',
    # pages from before the mark, by a line that each of them has
    b"content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
)
HEAD_BYTES = 4096


def check_output(path: Path, option: str, wanted: str, is_ours: Callable[[bytes], bool]) -> None:
    """Make sure that a file may be written: its place is free, or holds an empty file or an earlier one of its kind.

    Args:
        path: The file to write.
        option: The option that names it, for the message.
        wanted: What it will be, likewise.
        is_ours: Whether the content of a file shows that it is one of that kind.

    Raises:
        ValueError: Something else lies there, or it lies inside a pool.
    """
    told = f"{option} {str(path)!r}"
    if path.is_symlink():
        raise ValueError(f"{told} is a symbolic link; give the name of {wanted}")
    refuse_inside_pool(path, option)
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    kind = special_kind(status.st_mode)
    if kind:
        raise ValueError(f"{told} is {kind}; give the name of {wanted}")
    if status.st_size and (status.st_size > MOST_BYTES or not is_ours(path.read_bytes())):
        raise ValueError(f"{told} holds something else than {wanted} of unigap and stays as it is; give another name")


def refuse_inside_pool(path: Path, option: str) -> None:
    """Make sure that nothing is written into a pool, which would then be damaged.

    Raises:
        ValueError: The path is a pool or lies inside one.
    """
    for folder in (place := Path(os.path.realpath(path)), *place.parents):
        if (folder / POOL_FILE).exists():
            raise ValueError(f"{option} {str(path)!r} lies in the pool {folder}; give a place outside it")


def check_figures(out: str, option: str = "--out") -> None:
    """Make sure that ``out`` names a JSON file for figures, see `check_output`.

    Raises:
        ValueError: It does not.
    """
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option} {out!r} is no file in a folder that exists; give the name of a JSON file")
    check_output(path, option, "a JSON file of figures", is_figures)


def write_figures(out: str, figures: Mapping[str, Any]) -> None:
    """Write estimates as JSON, all or nothing.

    Args:
        out: The file, see `check_figures`.
        figures: ``Estimate.to_dict()`` by name, or by name and group.
    """
    write_durable(Path(out), json.dumps(figures, indent=1).encode())


def is_figures(data: bytes) -> bool:
    """Whether the bytes are what `write_figures` writes."""
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
