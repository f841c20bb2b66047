"""The candidates that training rows hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unigap.loop.verdict_columns import LazyRows
from unigap.pool.candidates import Candidates
from unigap.pool.drawings import StoredRow
from unigap.records import Candidate


def distinct_members(rows: Sequence[Any], members: Callable[[Any], Sequence[Candidate]]) -> Sequence[Candidate]:
    """Return each candidate that training rows hold once, in the order of the rows.

    Args:
        rows: Rows of an objective.
        members: Returns the candidates of a row, as the objective does.
    """
    columns = _columns(rows)
    if not columns:
        return [*{candidate.id: candidate for row in rows for candidate in members(row)}.values()]
    numbers = np.stack([column.rows for column in columns], 1).ravel()
    return Candidates(columns[0].table, numbers[np.sort(np.unique(numbers, return_index=True)[1])])


def stage_members(rows: Sequence[Any], places: np.ndarray, members: Callable[[Any], Sequence[Candidate]]) -> None:
    """Get drawings and behaviours of some rows ready to be read in any order, see ``Drawings.stage``."""
    columns = _columns(rows)
    if columns:
        acted = any(column.acted_from is not None for column in columns)
        columns[0].table.stage(np.concatenate([column.rows[places] for column in columns]), acted)
        return
    held = [candidate for place in places.tolist() for candidate in members(rows[place])]
    stored = [part for candidate in held for part in (candidate.stored, candidate.behaviour)]
    of_pool = [drawing for drawing in stored if isinstance(drawing, StoredRow)]
    for drawings in {id(drawing.drawings): drawing.drawings for drawing in of_pool}.values():
        drawings.stage(np.array([drawing.row for drawing in of_pool if drawing.drawings is drawings], np.int64))


def _columns(rows: Sequence[Any]) -> list[Candidates]:
    """Return the columns of lazy rows, in the order of a row's members; none of other rows."""
    if isinstance(rows, Candidates):
        return [rows]
    if not isinstance(rows, LazyRows):
        return []
    parts = [_columns(part) for part in rows.parts if not isinstance(part, np.ndarray)]
    return [column for part in parts for column in part] if all(parts) else []
