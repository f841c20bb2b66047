"""The folder of a demonstration: an earlier one is replaced where the user asks for it, and nothing else ever is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from unigap.files.durable import LOCK
from unigap.files.outputs import refuse_inside_pool
from unigap.files.seals import SEALS

MARK = "demo.json"
"""The plan of a demonstration, written before anything else."""
FILES = (MARK, "summary.json", "curves.json", "rows.jsonl", "gallery.json", "rejudged.json", "report.html", SEALS, LOCK)
FOLDERS = {
    "pool": (".parquet", ".json"),
    "csv": (".csv", ".yaml"),
    "gallery": (".png",),
    "rejudged": (".png",),
}
"""What a demonstration writes: folders, with the endings of the files inside."""
LOGS = "wandb"
"""The folder in which W&B keeps offline runs, as it likes."""


def check_demo_folder(out: str, overwrite: bool, plan: Collection[str]) -> Path:
    """Make sure that a demonstration may be written to a folder.

    Args:
        out: The folder.
        overwrite: Whether an earlier demonstration may be replaced.
        plan: The keys that the file ``demo.json`` of every demonstration has.

    Raises:
        ValueError: It holds something, and that is not the whole of an earlier demonstration or is to stay.
    """
    folder, told = Path(out), f"--out {out!r}"
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{told} is a file; give a folder")
    refuse_inside_pool(folder, "--out")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    if not overwrite or not _is_mark(folder / MARK, plan):
        raise ValueError(f"{told} is not empty; choose another folder, or --overwrite an earlier demo there")
    strangers = [path for path in sorted(folder.rglob("*")) if not _is_own(path.relative_to(folder), path)]
    if strangers:
        raise ValueError(
            f"{told} also holds {str(strangers[0].relative_to(folder))!r}, which no demo writes; move it away first"
        )
    return folder


def empty_demo_folder(folder: Path) -> None:
    """Remove what `check_demo_folder` found, the mark last, so that a killed removal still leaves a demo's folder."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MARK) if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _is_mark(path: Path, plan: Collection[str]) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= set(plan)


def _is_own(name: Path, path: Path) -> bool:
    """Whether a demonstration writes such a file or folder."""
    if path.is_symlink():
        return False
    top = name.parts[0]
    if top == LOGS:
        return True
    if len(name.parts) == 1:
        # durable writes that were killed leave hidden files
        return top in (FOLDERS if path.is_dir() else FILES) or (top.startswith(".") and top.endswith(".tmp"))
    return top in FOLDERS and (path.is_dir() or path.name == LOCK or path.suffix in (*FOLDERS[top], ".tmp"))
