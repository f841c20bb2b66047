"""Measure unigap and a peer in one run: alternating rounds, best of repeated medians; print a table and write JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from unigap.files.markdown import table

REPEATS, ROUNDS = 3, 3
"""Number of medians, and rounds per median."""


@dataclass(frozen=True)
class Row:
    """One measure.

    Attributes:
        measure: Name of the measure.
        ours: Our figure.
        peer: The peer's figure.
        ratio: How many times better ours is.
        unit: Unit of both figures.
    """

    measure: str
    ours: float
    peer: float
    ratio: float
    unit: str


def speeds(measure: str, ours: Callable[[], object], peer: Callable[[], object], work: float, unit: str) -> Row:
    """Measure how much of ``work`` each side does per second of CPU time, which does not count other programs.

    Both sides run in turn, so that a slow machine slows both.
    """
    medians: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for side, run in enumerate((ours, peer)):
                start = time.process_time()
                run()
                times[side].append(time.process_time() - start)
        for side in range(2):
            medians[side].append(statistics.median(times[side]))
    seconds = [min(side) for side in medians]
    return Row(measure, work / seconds[0], work / seconds[1], seconds[1] / seconds[0], unit)


def shown(rows: list[Row]) -> str:
    """Format the rows as a Markdown table."""
    cells = [[row.measure, f"{row.ours:.4g}", f"{row.peer:.4g}", f"{row.ratio:.2f}", row.unit] for row in rows]
    return table(["measure", "ours", "peer", "ratio", "unit"], cells)


def main(description: str, measure: Callable[[], list[Row]], argv: list[str] | None = None) -> None:
    """Measure on one thread and print the table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # warnings of the peers
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = measure()
    print(shown(rows))
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
