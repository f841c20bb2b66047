"""``unigap pool verify``: every file of a pool against its checksums."""

from __future__ import annotations

from pathlib import Path

from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.pool.damage import find_damage
from unigap.pool.layout import HEAD


def pool_verify(folder: str) -> None:
    """Check every file of a pool against its manifests.

    Args:
        folder: The pool.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"pool {folder!r}: no such folder")
    with tasks.task("reading", f"reading {folder}"):
        damage = find_damage(folder)
    if damage:
        raise ValueError("; ".join(damage))
    print(f"{folder}: sound")
    if not (Path(folder) / HEAD).exists():
        print(f"it carries no {HEAD}, as in earlier versions: rounds deleted from its end would not be noticed")
    close({}, command("judge", "agreement", folder))
