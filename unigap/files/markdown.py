"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table.

    Args:
        header: Names of the columns.
        rows: Values of each row, one for each column; shown by ``str``.

    >>> print(table(["name", "share"], [["a", 0.5]]))
    | name | share |
    | --- | --- |
    | a | 0.5 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(value: Any) -> str:
    """Return a value as the text of one cell: one line, with vertical bars escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")
