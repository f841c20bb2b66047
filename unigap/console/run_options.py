"""Options of a run that could only fail later, told before anything is loaded, drawn or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SPAWNING = ("spawn", "fork", "forkserver", "notebook")
PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed", "bf16", "16", "bf16-true", "64", "64-true")
"""The precisions a run may have; others make weights of a kind that the optimizer or the losses cannot take."""
AT_LEAST = {"accumulate_grad_batches": 1, "log_every_n_steps": 0, "max_epochs": -1, "max_steps": -1}


def check_run_options(config: Mapping[str, Any]) -> None:
    """Make sure that the resolved config of a run can work.

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
    precision = trainer.get("precision")
    if precision is not None and str(precision) not in PRECISIONS:
        raise ValueError(f"trainer.precision {precision!r} does not train here; take bf16-mixed, 16-mixed or 32-true")
    _check_strategy(trainer.get("strategy"))
    for option, folder in _folders(config):
        check_folder(folder, option)


def check_folder(folder: str, option: str) -> None:
    """Make sure that a folder can be made: neither it nor one above it is a file.

    Raises:
        ValueError: One of them is.
    """
    path = Path(folder)
    found = next((place for place in (path, *path.parents) if place.exists()), None)
    if found is not None and not found.is_dir():
        raise ValueError(f"--{option} {folder!r}: {str(found)!r} is no folder; give another folder")


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
    """The folders a run is told to write to, with the options that name them."""
    for block in ("checkpoint", "summary"):
        folder = (config.get(block) or {}).get("folder")
        if folder:
            yield f"{block}.folder", str(folder)
    callbacks = config["trainer"].get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        folder = (callback.get("init_args") or {}).get("folder")
        if folder:
            yield "trainer.callbacks.folder", str(folder)
