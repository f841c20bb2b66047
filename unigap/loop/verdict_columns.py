"""Candidates and verdicts as columns, whether they come from a pool or from a list."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from unigap.pool.candidates import Candidates, Numbers
from unigap.pool.ranking import Ranked, Ranking, tie_breaks
from unigap.records import Candidate


class LazyRows(Sequence[Any]):
    """Training rows that are made when they are asked for, of what several sequences hold at a place.

    Args:
        make: Makes a row.
        parts: Sequences of equal length: candidates, rows, or an array with a number for each.
    """

    def __init__(self, make: Callable[..., Any], *parts: Sequence[Any] | np.ndarray) -> None:
        self.make, self.parts = make, parts

    def __len__(self) -> int:
        return len(self.parts[0])

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return LazyRows(self.make, *(part[place] for part in self.parts))
        return self.make(*(part[place] for part in self.parts))

    def __iter__(self) -> Iterator[Any]:
        return map(self.make, *self.parts)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented


def joined_rows(make: Callable[..., Any], *parts: Sequence[Any] | np.ndarray) -> Sequence[Any]:
    """Return rows made of what several sequences hold at a place: lazily where they come from a pool."""
    lazy = all(isinstance(part, Candidates | LazyRows | np.ndarray) for part in parts)
    return LazyRows(make, *parts) if lazy else [*map(make, *parts)]


@dataclass(frozen=True)
class VerdictColumns:
    """Candidates and their log-odds of yes as columns.

    Attributes:
        candidates: The candidates.
        logit_N: Log-odds of each, NaN without a verdict.
        group_N: The prompt id of each, as a number.
        names: The prompt ids by number.
        ranking: A ranking of the first of these candidates, which is extended.
    """

    candidates: Sequence[Candidate]
    logit_N: np.ndarray
    group_N: np.ndarray
    names: Sequence[str]
    ranking: Ranking

    def ranked(self) -> Ranked:
        """Return the judged candidates of each prompt, highest logit first; equal ones by the text of their id."""
        return self.ranking.extend(self.group_N, self.logit_N, self._ties)

    def take(self, places: np.ndarray) -> Sequence[Candidate]:
        """Return the candidates at some places, in that order."""
        if isinstance(self.candidates, Candidates):
            return self.candidates.take(places)
        return [self.candidates[place] for place in places.tolist()]

    @property
    def round_N(self) -> np.ndarray:
        """Round of each candidate."""
        if isinstance(self.candidates, Candidates):
            return self.candidates.table.round_of(self.candidates.rows)
        return np.array([candidate.round for candidate in self.candidates], np.int64)

    def of_round(self, number: int) -> np.ndarray:
        """Return the places of the candidates of a round."""
        return np.flatnonzero(self.round_N == number)

    def prompt_ids(self, groups: np.ndarray) -> list[str]:
        """Return the prompt ids of some groups, in that order."""
        return [self.names[group] for group in groups.tolist()]

    def _ties(self, places: np.ndarray) -> np.ndarray:
        if isinstance(self.candidates, Candidates):
            rows = self.candidates.rows[places]
            return tie_breaks(self.candidates.table.round_of(rows), self.candidates.table.index_N[rows])
        taken = self.take(places)
        return tie_breaks(np.array([c.round for c in taken]), np.array([c.index for c in taken]))


def verdict_columns(candidates: Iterable[Candidate], logits: Mapping[str, float] | None = None) -> VerdictColumns:
    """Return candidates and a judge's log-odds of yes by candidate id as columns; of a pool, without making records."""
    if isinstance(candidates, Candidates) and (not logits or isinstance(logits, Numbers)):
        return _of_pool(candidates, logits if isinstance(logits, Numbers) else None)
    listed, said = list(candidates), logits or {}
    logit_N = np.array([said.get(candidate.id, math.nan) for candidate in listed], np.float64)
    numbers: dict[str, int] = {}
    group_N = [numbers.setdefault(candidate.prompt.id, len(numbers)) for candidate in listed]
    return VerdictColumns(listed, logit_N, np.array(group_N, np.int64), [*numbers], Ranking())


def _of_pool(candidates: Candidates, logits: Numbers | None) -> VerdictColumns:
    table, rows = candidates.table, candidates.rows
    if logits is None:
        return VerdictColumns(candidates, np.full(len(rows), np.nan), table.group_of(rows), table.ids, Ranking())
    assert logits.table is table, "verdicts of another pool"
    if candidates.whole and len(logits.value_N) == len(rows):
        ranking = logits.ranking if logits.ranking.count <= len(rows) else Ranking()
        return VerdictColumns(candidates, logits.value_N, table.group_of(rows), table.ids, ranking)
    covered = rows < len(logits.value_N)
    logit_N = np.full(len(rows), np.nan)
    logit_N[covered] = logits.value_N[rows[covered]]
    return VerdictColumns(candidates, logit_N, table.group_of(rows), table.ids, Ranking())
