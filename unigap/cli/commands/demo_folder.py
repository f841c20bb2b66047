"""The folder of a demo: ``--overwrite`` replaces an earlier demo and never any other file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from unigap.files.durable import LOCK
from unigap.files.outputs import refuse_inside_pool
from unigap.files.seals import SEALS
from unigap.report.run_folder.fit_folder import CONFIG

MARK = "demo.json"
"""Settings of the demo, the first file written; it marks a folder as a demo's."""
KEYS = {"checkpoint", "seed", "cfg"}
"""Keys of every demo's ``demo.json``."""
CONTROL = "control.json"
"""The gain of the recall control."""
RESULTS = ("summary.json", CONTROL, "curves.json", "rows.jsonl", "gallery.json", "rejudged.json", "report.html")
FILES = (MARK, *RESULTS, CONFIG, SEALS, LOCK)
FOLDERS = {
    "pool": (".parquet", ".json"),
    "checkpoints": (".ckpt", ".yaml", ".json", ".new"),
    "logs": (".csv",),
    "csv": (".csv", ".yaml"),  # of earlier versions
    "gallery": (".png",),
    "rejudged": (".png",),
}
"""Folders that a demo writes, with the suffixes of the files inside."""
LOGS = "wandb"
"""Folder of W&B's offline runs; any file may be in it."""


def check_demo_folder(out: str, overwrite: bool) -> Path:
    """Check that a demo may be written to a folder.

    Args:
        out: The folder.
        overwrite: Whether to replace an earlier demo.

    Returns:
        The folder.

    Raises:
        ValueError: It is not empty, and ``overwrite`` is off or it holds files that no demo writes.
    """
    folder, option = Path(out), f"--out {out!r}"
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{option} is a file; give a folder")
    refuse_inside_pool(folder, "--out")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    if not overwrite or not _is_mark(folder / MARK):
        raise ValueError(f"{option} is not empty; choose another folder, or --overwrite an earlier demo there")
    foreign = [path for path in sorted(folder.rglob("*")) if not _is_own(path.relative_to(folder), path)]
    if foreign:
        raise ValueError(
            f"{option} also holds {str(foreign[0].relative_to(folder))!r}, which no demo writes; move it away first"
        )
    return folder


def empty_demo_folder(folder: Path) -> None:
    """Empty a folder that `check_demo_folder` accepted; ``MARK`` last, so that it stays a demo folder if killed."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MARK) if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _is_mark(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= KEYS


def _is_own(name: Path, path: Path) -> bool:
    """Whether a demo writes such a file or folder."""
    if path.is_symlink():
        return False
    top = name.parts[0]
    if top == LOGS:
        return True
    if len(name.parts) == 1:
        # killed durable writes leave hidden .tmp files
        return top in (FOLDERS if path.is_dir() else FILES) or (top.startswith(".") and top.endswith(".tmp"))
    return top in FOLDERS and (path.is_dir() or path.name == LOCK or path.suffix in (*FOLDERS[top], ".tmp"))
