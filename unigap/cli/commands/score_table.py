"""Scores of a benchmark as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from unigap.metrics.intervals import Estimate


def print_scores(figures: Mapping[str, Estimate]) -> None:
    """Print a score with its interval for each group."""
    table = Table("tag")
    table.add_column("score [95 % interval]", justify="right")
    for tag, estimate in figures.items():
        table.add_row(tag, str(estimate))
    Console(markup=False).print(table)
