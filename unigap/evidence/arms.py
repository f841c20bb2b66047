"""Arms of an experiment: each is measured once, kept as JSON, and not measured again when the command is run again."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from unigap.console.allocator import keep_freed_memory
from unigap.console.stop_signal import stopped_at_once
from unigap.storage.manifest import make_folder, write_durable

Result = dict[str, Any]
"""What an arm found: plain JSON."""


def run_arms(
    folder: Path, recipe: Mapping[str, Any], arms: Mapping[str, Callable[[], Result]], jobs: int = 1
) -> dict[str, Result]:
    """Measures the arms that are not there yet, in order, with a progress bar.

    Args:
        folder: Where results are kept, one file an arm.
        recipe: Everything the results depend on, as plain JSON.
        arms: How to measure each, by name; with one job, an arm may use what earlier ones left in the folder.
        jobs: How many are measured at once, each in a process of one thread.

    Returns:
        All results by name.

    Raises:
        ValueError: When the folder holds results of another recipe; the message says what differs.
    """
    make_folder(folder)
    _check_recipe(folder / "recipe.json", json.loads(json.dumps(recipe)))
    missing = {name: measure for name, measure in arms.items() if not _path(folder, name).exists()}
    bar = tqdm(total=len(arms), initial=len(arms) - len(missing), unit="arm", disable=not arms)
    with bar, stopped_at_once("the same command continues"):
        for name in _measure_here(folder, missing) if jobs == 1 else _measure_apart(folder, missing, jobs):
            bar.set_description(name)
            bar.update()
    return {name: json.loads(_path(folder, name).read_text(encoding="utf-8")) for name in arms}


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _measure_one(folder: Path, name: str, measure: Callable[[], Result]) -> str:
    write_durable(_path(folder, name), json.dumps(measure()).encode())
    return name


def _measure_here(folder: Path, arms: Mapping[str, Callable[[], Result]]) -> Iterator[str]:
    for name, measure in arms.items():
        yield _measure_one(folder, name, measure)


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def _measure_apart(folder: Path, arms: Mapping[str, Callable[[], Result]], jobs: int) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(jobs, context, initializer=_prepare_worker) as pool:
        try:
            for done in as_completed([pool.submit(_measure_one, folder, *arm) for arm in arms.items()]):
                yield done.result()
        except BaseException:
            # an arm is written whole or not at all, and its trainer would take a gentler signal for itself
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


def _check_recipe(path: Path, recipe: dict[str, Any]) -> None:
    if not path.exists():
        write_durable(path, json.dumps(recipe, indent=1).encode())
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    different = sorted(name for name in kept.keys() | recipe.keys() if kept.get(name) != recipe.get(name))
    if different:
        raise ValueError(
            f"{path.parent} holds results of another experiment ({', '.join(different)} differ); "
            "delete the folder or name another with --work"
        )
