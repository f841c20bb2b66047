"""The candidates of a pool as columns: a record is made when it is asked for, a drawing read when it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from unigap.pool.drawings import BEHAVIOUR_TOKENS, Drawings, StoredRow
from unigap.pool.layout import CANDIDATES_FILE, PROMPTS_FILE
from unigap.pool.parquet import count_rows, read_parquet, stream_parquet
from unigap.pool.ranking import Ranking
from unigap.pool.schemas import PROMPTS, candidate_schema
from unigap.pool.tables import prompts_of
from unigap.records import Candidate, DrawingFormat, Prompt

COLUMNS = ["prompt_id", "index", "seed", "logp"]


class CandidateTable:
    """Columns of the candidates of a pool's rounds; a round is read once, 28 bytes are kept of a candidate.

    Args:
        folder_of: Returns the folder of a round, after a check of its files.
        format: Format of the drawings.

    Attributes:
        starts: Number of the first row of each round, then the number of rows.
        prompts: Distinct prompts.
        ids: Their ids.
        drawings: The drawings by row.
        behaviours: Log-probabilities of tokens under the sampling recipe by row, of the rounds that store them.
        group: Number of the first prompt with the same id, for each prompt.
        prompt_N: Number of the prompt of each row; further columns are ``index_N``, ``seed_N`` and ``logp_N``, NaN
            where there is none.
    """

    def __init__(self, folder_of: Callable[[int], Path], format: DrawingFormat | None) -> None:
        self._folder_of, self._schema = folder_of, candidate_schema(format)
        self.starts = [0]
        self.prompts: list[Prompt] = []
        self.ids: list[str] = []
        self.group: list[int] = []
        self.drawings = Drawings(folder_of, format)
        self.behaviours = Drawings(folder_of, None, BEHAVIOUR_TOKENS)
        self.prompt_N = np.empty(0, np.int32)
        self.index_N = np.empty(0, np.int32)
        self.seed_N = np.empty(0, np.int64)
        self.logp_N = np.empty(0, np.float64)
        self._numbers: dict[str, int] = {}
        self._runs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def read_upto(self, rounds: int) -> None:
        """Read the rounds below ``rounds`` that have not been read.

        Raises:
            ValueError: A file is damaged; the message names it.
        """
        fresh = range(len(self.starts) - 1, rounds)
        read = [self._read(round) for round in fresh]
        if not read:
            return
        columns = list(zip(*read, strict=True))
        self.prompt_N = np.concatenate([self.prompt_N, *columns[0]])
        self.index_N = np.concatenate([self.index_N, *columns[1]])
        self.seed_N = np.concatenate([self.seed_N, *columns[2]])
        self.logp_N = np.concatenate([self.logp_N, *columns[3]])
        for _, index_N, *_ in read:
            self.starts.append(self.starts[-1] + len(index_N))
            self.drawings.add_round(len(index_N))
            self.behaviours.add_round(len(index_N))

    def group_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of the prompt id of rows."""
        return np.asarray(self.group, np.int32)[self.prompt_N[rows]]

    def round_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the round of rows."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def candidate(self, row: int, behaviour: bool = False) -> Candidate:
        """Return the candidate of a row; its drawing, and its behaviour if asked for, are read when they are used."""
        logp = float(self.logp_N[row])
        return Candidate(
            self.prompts[self.prompt_N[row]],
            int(self.round_of(np.asarray(row))),
            int(self.index_N[row]),
            int(self.seed_N[row]),
            StoredRow(self.drawings, row),
            None if math.isnan(logp) else logp,
            StoredRow(self.behaviours, row) if behaviour else None,
        )

    def stage(self, rows: np.ndarray, behaviour: bool) -> None:
        """Get drawings, and behaviours if asked for, ready to be read in any order; see ``Drawings.stage``."""
        self.drawings.stage(rows)
        if behaviour:
            self.behaviours.stage(rows)

    def candidate_ids(self, first: int, last: int) -> pa.Array:
        """Return the candidate ids of rows ``first`` to ``last`` of one round, ``last`` not included."""
        round = int(self.round_of(np.asarray(first)))
        numbers, indices = self.prompt_N[first:last].tolist(), self.index_N[first:last].tolist()
        names = [f"{self.ids[n]}@{round}.{i}" for n, i in zip(numbers, indices, strict=True)]
        return pa.array(names, pa.string())

    def row_of(self, id: str) -> int | None:
        """Return the row of a candidate id; None if there is none."""
        prompt_id, _, place = id.rpartition("@")
        round_text, _, index_text = place.partition(".")
        if not (round_text.isdecimal() and index_text.isdecimal()):
            return None
        round, index = int(round_text), int(index_text)
        if f"{prompt_id}@{round}.{index}" != id or round >= len(self.starts) - 1 or prompt_id not in self._numbers:
            return None
        groups, firsts = self._runs_of(round)
        place_of = int(np.searchsorted(groups, self.group[self._numbers[prompt_id]]))
        if place_of == len(groups) or groups[place_of] != self.group[self._numbers[prompt_id]]:
            return None
        first, last = firsts[place_of].tolist()
        row = first + int(np.searchsorted(self.index_N[first:last], index))
        return row if row < last and self.index_N[row] == index else None

    def _runs_of(self, round: int) -> tuple[np.ndarray, np.ndarray]:
        """Return prompt groups of a round, ascending, and first and last row of each, (G, 2)."""
        if round not in self._runs:
            start, stop = self.starts[round : round + 2]
            group_N = self.group_of(np.arange(start, stop))
            firsts = np.flatnonzero(np.diff(group_N, prepend=-1))
            bounds = np.stack([firsts, np.append(firsts, len(group_N))[1:]], 1) + start
            order = np.argsort(group_N[firsts])
            self._runs[round] = group_N[firsts][order], bounds[order]
        return self._runs[round]

    def _read(self, round: int) -> tuple[np.ndarray, ...]:
        folder = self._folder_of(round)
        numbers = self._add_prompts(prompts_of(read_parquet(folder / PROMPTS_FILE, PROMPTS)))
        path = folder / CANDIDATES_FILE
        rows = count_rows(path, self._schema)
        prompt_N, index_N = np.empty(rows, np.int32), np.empty(rows, np.int32)
        seed_N, logp_N = np.empty(rows, np.int64), np.empty(rows, np.float64)
        for start, part in stream_parquet(path, self._schema, COLUMNS):
            place = slice(start, start + len(part))
            ids = part["prompt_id"].combine_chunks()
            known = np.array([numbers[id] for id in ids.dictionary.to_pylist()], np.int32)
            prompt_N[place] = known[ids.indices.to_numpy()]
            index_N[place], seed_N[place] = part["index"].to_numpy(), part["seed"].to_numpy()
            logp_N[place] = part["logp"].to_numpy()
        return prompt_N, index_N, seed_N, logp_N

    def _add_prompts(self, prompts: Sequence[Prompt]) -> dict[str, int]:
        """Number the prompts of a round; return the numbers by id."""
        numbers: dict[str, int] = {}
        for prompt in prompts:
            number = self._numbers.get(prompt.id)
            if number is None or self.prompts[number] != prompt:
                fresh = len(self.prompts)
                self.prompts.append(prompt)
                self.ids.append(prompt.id)
                self.group.append(fresh if number is None else self.group[number])
                number = self._numbers[prompt.id] = fresh
            numbers[prompt.id] = number
        return numbers


class Candidates(Sequence[Candidate]):
    """Candidates of a pool, made when they are asked for.

    Args:
        table: The columns.
        rows: Numbers of the rows, int (N,).
        whole: Whether these are all rows of the first rounds, in order.
        acted_from: First round whose candidates have ``behaviour_M``; None for none.
    """

    def __init__(
        self, table: CandidateTable, rows: np.ndarray, whole: bool = False, acted_from: int | None = None
    ) -> None:
        self.table, self.rows, self.whole, self.acted_from = table, rows, whole, acted_from
        self._acted = math.inf if acted_from is None else table.starts[acted_from]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> Candidates: ...
    def __getitem__(self, place: int | slice) -> Candidate | Candidates:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return self._candidate(int(self.rows[place]))

    def __iter__(self) -> Iterator[Candidate]:
        for row in self.rows:
            yield self._candidate(int(row))

    def _candidate(self, row: int) -> Candidate:
        return self.table.candidate(row, behaviour=row >= self._acted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def take(self, places: np.ndarray) -> Candidates:
        """Return the candidates at some places, in that order."""
        return Candidates(self.table, self.rows[places], acted_from=self.acted_from)

    def with_behaviour(self, first_round: int) -> Candidates:
        """Return the same candidates; those of a round and later ones have ``behaviour_M``."""
        return Candidates(self.table, self.rows, self.whole, first_round)

    def stage(self) -> None:
        """Get drawings and behaviours ready to be read in any order, in one pass; see ``Drawings.stage``."""
        self.table.stage(self.rows, self.acted_from is not None)


class Numbers(Mapping[str, float]):
    """A number for some of the candidates of a pool, by candidate id.

    Args:
        table: The columns of the pool.
        value_N: Number of each of the first N rows, NaN where there is none, float64 (N,).
        ranking: Ranking of rows by their number, which covers N rows at most.
    """

    def __init__(self, table: CandidateTable, value_N: np.ndarray, ranking: Ranking) -> None:
        self.table, self.value_N, self.ranking = table, value_N, ranking
        self._any = not np.isnan(value_N).all()  # asked once a batch

    def __bool__(self) -> bool:
        return self._any

    def __getitem__(self, id: str) -> float:
        row = self.table.row_of(id)
        if row is None or row >= len(self.value_N) or math.isnan(self.value_N[row]):
            raise KeyError(id)
        return float(self.value_N[row])

    def __iter__(self) -> Iterator[str]:
        return (self.table.candidate(int(row)).id for row in np.flatnonzero(~np.isnan(self.value_N)))

    def __len__(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.value_N)))

    def with_numbers(self, fresh: Mapping[str, float]) -> Numbers:
        """Return these numbers and those of further candidates of the pool."""
        value_N = self.value_N.copy()
        for id, number in fresh.items():
            row = self.table.row_of(id)
            assert row is not None, id
            value_N[row] = number
        return Numbers(self.table, value_N, Ranking())
