"""Refuse options of a run that would fail later, before anything is loaded, sampled or written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SPAWNING = ("spawn", "fork", "forkserver", "notebook")
PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed", "bf16", "16", "bf16-true", "64", "64-true")
"""Precisions that a run supports; the optimizer or the losses cannot use the others."""
AT_LEAST = {"accumulate_grad_batches": 1, "log_every_n_steps": 0, "max_epochs": -1, "max_steps": -1}


def check_run_options(config: Mapping[str, Any]) -> None:
    """Check the resolved config of a run.

    Args:
        config: The options of ``fit``, ``validate`` or ``predict``, classes as ``class_path`` and ``init_args``.

    Raises:
        ValueError: A trainer option cannot work with self-improvement, or a folder to write to is a file.
    """
    trainer = config["trainer"]
    for name, least in AT_LEAST.items():
        value = trainer.get(name)
        if value is not None and value < least:
            raise ValueError(f"trainer.{name} must be >= {least}, got {value}")
    _check_clipping(trainer.get("gradient_clip_val"), trainer.get("gradient_clip_algorithm"))
    precision = trainer.get("precision")
    if precision is not None and str(precision) not in PRECISIONS:
        raise ValueError(f"trainer.precision {precision!r} does not train here; take bf16-mixed, 16-mixed or 32-true")
    _check_strategy(trainer.get("strategy"))
    for option, folder in _folders(config):
        check_folder(folder, option)


def _check_clipping(most: float | None, algorithm: str | None) -> None:
    """Check the gradient clipping, which Lightning leaves out without a word if its options make no sense."""
    if most is None and algorithm is not None:
        raise ValueError(f"trainer.gradient_clip_algorithm {algorithm!r} clips nothing; set trainer.gradient_clip_val")
    if most is not None and not 0 < most < math.inf:
        raise ValueError(f"trainer.gradient_clip_val must be > 0 and finite, got {most}; null clips nothing")


def check_folder(folder: str, option: str) -> None:
    """Check that a folder can be created: neither it nor a parent is a file.

    Raises:
        ValueError: One of them is a file.
    """
    path = Path(folder)
    existing = next((parent for parent in (path, *path.parents) if parent.exists()), None)
    if existing is not None and not existing.is_dir():
        raise ValueError(f"--{option} {folder!r}: {str(existing)!r} is no folder; give another folder")


def _check_strategy(strategy: Any) -> None:
    if not strategy:
        return
    by_class = not isinstance(strategy, str)
    named = str((strategy.get("init_args") or {}).get("start_method") or "") if by_class else strategy
    if any(word in SPAWNING for word in named.split("_")):
        raise ValueError(
            f"trainer.strategy {named!r}: spawned processes lose the pool; use ddp, which starts them by command"
        )


def _folders(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each option that names a folder to write, with the folder."""
    for block in ("checkpoint", "summary"):
        folder = (config.get(block) or {}).get("folder")
        if folder:
            yield f"{block}.folder", str(folder)
    callbacks = config["trainer"].get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        folder = (callback.get("init_args") or {}).get("folder")
        if folder:
            yield "trainer.callbacks.folder", str(folder)
