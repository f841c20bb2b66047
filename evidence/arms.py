"""Measure the arms of an experiment once and keep the results in one Parquet file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evidence.results_file import Result, ResultsFile
from unigap.console.allocator import keep_freed_memory
from unigap.console.stop_signal import stopped_at_once

Arms = Mapping[str, Callable[[], Result]]


def run_arms(path: Path, recipe: Mapping[str, Any], arms: Arms, jobs: int = 1) -> dict[str, Result]:
    """Measure the arms that the file does not hold yet, in order, with a progress bar.

    Args:
        path: The Parquet file of all results of the page.
        recipe: Everything that the results depend on, as plain JSON.
        arms: Function that measures an arm, by name of the arm. With one job, an arm may use files of earlier arms.
        jobs: Number of arms measured at once, each in a process of one thread.

    Returns:
        The results of ``arms`` by name.

    Raises:
        ValueError: The file holds results of another recipe; the message says what differs.
    """
    file = ResultsFile(path)
    kept = file.begin(recipe)
    missing = {name: measure for name, measure in arms.items() if name not in kept}
    bar = tqdm(total=len(arms), initial=len(arms) - len(missing), unit="arm", disable=not arms)
    with bar, stopped_at_once("the same command continues"):
        for name in _measure_here(file, missing) if jobs == 1 else _measure_apart(file, missing, jobs):
            bar.set_description(name)
            bar.update()
    results = file.results() if missing else kept
    return {name: results[name] for name in arms}


def _measure_one(file: ResultsFile, name: str, measure: Callable[[], Result]) -> str:
    file.add(name, measure())
    return name


def _measure_here(file: ResultsFile, arms: Arms) -> Iterator[str]:
    for name, measure in arms.items():
        yield _measure_one(file, name, measure)


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def _measure_apart(file: ResultsFile, arms: Arms, jobs: int) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(jobs, context, initializer=_prepare_worker) as pool:
        try:
            for done in as_completed([pool.submit(_measure_one, file, *arm) for arm in arms.items()]):
                yield done.result()
        except BaseException:
            # a result is written whole or not at all, and a trainer in the worker would intercept SIGTERM
            for worker in multiprocessing.active_children():
                worker.kill()
            raise
