"""Columns of verdicts and reference log-likelihoods beside the candidates of a pool; each file is read once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unigap.pool.candidates import CandidateTable
from unigap.pool.parquet import stream_parquet
from unigap.pool.ranking import Ranking
from unigap.pool.schemas import JUDGMENTS


class Column:
    """A number for each row of a pool, NaN where there is none.

    Args:
        table: The candidates.

    Attributes:
        value_N: The numbers, float64 (N,).
        rounds: Number of rounds that the column covers.
        read: Names of the tables that were read.
        ranking: The ranking by these numbers.
    """

    def __init__(self, table: CandidateTable) -> None:
        self._table = table
        self.value_N = np.empty(0)
        self.rounds = 0
        self.read: set[str] = set()
        self.ranking = Ranking()
        self._waiting: list[tuple[str, float]] = []

    def add_round(self) -> None:
        """Add the rows of the next round."""
        start, stop = self._table.starts[self.rounds : self.rounds + 2]
        self.value_N = np.concatenate([self.value_N, np.full(stop - start, np.nan)])
        self.rounds += 1
        waiting, self._waiting = self._waiting, []
        self.set(waiting)

    def set(self, numbers: Iterable[tuple[str, float]]) -> None:
        """Set numbers by candidate id; those of candidates that are not read yet wait for their round."""
        for id, value in numbers:
            row = self._table.row_of(id)
            if row is not None and row < len(self.value_N):
                self.value_N[row] = value
                self.ranking = Ranking()  # the row may have been ranked without a number
            else:
                self._waiting.append((id, value))


def add_verdicts(column: Column, table: CandidateTable, round: int, path: Path, judge: str) -> None:
    """Set the log-odds of a judge in a round from its table of judgments.

    Raises:
        ValueError: The table is damaged.
    """
    at, stop = table.starts[round], table.starts[round + 1]
    for _, part in stream_parquet(path, JUDGMENTS, ["candidate_id", "judge", "logit"]):
        mine = part.filter(pc.equal(part["judge"].cast(pa.string()), judge))
        ids, logits = mine["candidate_id"].cast(pa.string()).combine_chunks(), mine["logit"].to_numpy()
        end = at + len(mine)
        # the table has the order of the candidates: as a rule no candidate is left out
        if at < end <= stop and table.candidate_ids(at, end).equals(ids):
            column.value_N[at:end] = logits
            at = end
        else:
            column.set(zip(ids.to_pylist(), logits.tolist(), strict=True))


def judges_in(path: Path) -> set[str]:
    """Return the names of the judges in a table of judgments.

    Raises:
        ValueError: The table is damaged.
    """
    return {
        name for _, part in stream_parquet(path, JUDGMENTS, ["judge"]) for name in part["judge"].unique().to_pylist()
    }
