"""Read the drawings of candidates, and numbers of each token, by row; memory does not grow with the pool."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from unigap.files.durable import explain_write_errors
from unigap.pool.latents import open_latents
from unigap.pool.layout import CANDIDATES_FILE, LATENTS_FILE
from unigap.pool.parquet import stream_parquet
from unigap.pool.schemas import candidate_schema
from unigap.records import DrawingFormat

OPEN_ROUNDS = 64
"""Rounds that are open at once."""


@dataclass(frozen=True)
class TokenColumn:
    """A column of the tables that holds a number of 32 bits for each token.

    Attributes:
        name: Name of the column.
        dtype: Type of the numbers.
    """

    name: str
    dtype: type[np.number]


CODES = TokenColumn("codes", np.int32)
BEHAVIOUR_TOKENS = TokenColumn("behaviour_tokens", np.float32)


@dataclass(frozen=True)
class StoredRow:
    """The drawing of one row of a pool.

    Attributes:
        drawings: The drawings of the pool.
        row: Number of the row over all rounds.
    """

    drawings: Drawings
    row: int

    def read(self) -> np.ndarray:
        """Return the drawing as a new array."""
        return self.drawings.read(self.row)


class Drawings:
    """The drawings of a pool, by the number of their row over all rounds.

    Latents are in files that are read by row. Codes are in compressed tables, which can only be read in order: rows
    that will be read in another order are staged, which copies them to a temporary file of this process
    (in ``TMPDIR``; it vanishes with the process).

    Args:
        folder_of: Returns the folder of a round, after a check of its files.
        format: Format of the drawings.
        column: Where codes are; another column of the tables is read in the same way.
    """

    def __init__(
        self, folder_of: Callable[[int], Path], format: DrawingFormat | None, column: TokenColumn = CODES
    ) -> None:
        self._folder_of, self._format, self._column = folder_of, format, column
        self._starts = [0]
        self._open: OrderedDict[int, np.ndarray | _Cursor] = OrderedDict()
        self._staged: _Staged | None = None

    def add_round(self, rows: int) -> None:
        """Count in the rows of the next round."""
        self._starts.append(self._starts[-1] + rows)

    def read(self, row: int) -> np.ndarray:
        """Return a drawing as a new array.

        Raises:
            ValueError: A file is damaged; the message names it.
        """
        staged = self._staged.read(row) if self._staged else None
        if staged is None:
            round = self._round_of(row)
            source, row = self._source(round), row - self._starts[round]
            staged = source.read(row) if isinstance(source, _Cursor) else np.array(source[row])
        return staged.reshape(self._format.shape) if self._format else staged

    def stage(self, rows: np.ndarray) -> None:
        """Get rows ready to be read in any order, in one pass over their rounds; earlier ones are forgotten.

        Args:
            rows: Numbers of the rows.
        """
        if self._format and self._format.is_latent:
            return
        rows = np.unique(rows)
        if self._staged and self._staged.holds(rows):
            return
        self._staged = None  # free the disk first
        staged = _Staged(rows, self._column)
        bounds = np.searchsorted(rows, self._starts)
        for round, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                for codes in _taken(self._table(round), rows[first:last] - self._starts[round], self._column):
                    staged.append(codes)
        self._staged = staged

    def _round_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _source(self, round: int) -> np.ndarray | _Cursor:
        if round not in self._open:
            if self._format and self._format.is_latent:
                self._open[round] = open_latents(self._folder_of(round) / LATENTS_FILE, self._format)
            else:
                self._open[round] = _Cursor(self._table(round), self._column)
            if len(self._open) > OPEN_ROUNDS:
                self._open.popitem(last=False)
        self._open.move_to_end(round)
        return self._open[round]

    def _table(self, round: int) -> Path:
        return self._folder_of(round) / CANDIDATES_FILE


class _Cursor:
    """Reads rows of codes in ascending order, a part of the table in memory; a row that lies behind starts anew."""

    def __init__(self, table: Path, column: TokenColumn) -> None:
        self._table, self._column, self._parts, self._first = table, column, _parts(table, column), 0
        self._codes: pa.ListArray = pa.array([], pa.list_(pa.from_numpy_dtype(column.dtype)))

    def read(self, row: int) -> np.ndarray:
        if row < self._first:
            self._parts, self._codes = _parts(self._table, self._column, row), self._codes[:0]
        while not self._first <= row < self._first + len(self._codes):
            self._first, self._codes = next(self._parts)
        return np.array(self._codes[row - self._first].values.to_numpy())


class _Staged:
    """Rows of codes in a temporary file."""

    def __init__(self, rows: np.ndarray, column: TokenColumn) -> None:
        self._rows, self._ends, self._dtype = rows, np.zeros(len(rows) + 1, np.int64), column.dtype
        self._count = 0
        self._file, name = tempfile.mkstemp(prefix="unigap-")
        os.unlink(name)
        weakref.finalize(self, os.close, self._file)

    def append(self, codes: pa.ListArray) -> None:
        lengths = codes.value_lengths().to_numpy(zero_copy_only=False)
        ends = self._ends[self._count] + 4 * np.cumsum(lengths, dtype=np.int64)
        self._ends[self._count + 1 : self._count + 1 + len(codes)] = ends
        self._count += len(codes)
        data = memoryview(codes.flatten().to_numpy().tobytes())
        with explain_write_errors(Path(tempfile.gettempdir())):
            while data:
                data = data[os.write(self._file, data) :]

    def holds(self, rows: np.ndarray) -> bool:
        return bool(np.isin(rows, self._rows, assume_unique=True).all())

    def read(self, row: int) -> np.ndarray | None:
        place = int(np.searchsorted(self._rows, row))
        if place == len(self._rows) or self._rows[place] != row:
            return None
        start, end = self._ends[place : place + 2].tolist()
        return np.frombuffer(bytearray(os.pread(self._file, end - start, start)), self._dtype)


def _parts(table: Path, column: TokenColumn, first: int = 0) -> Iterator[tuple[int, pa.ListArray]]:
    for start, part in stream_parquet(table, candidate_schema(), [column.name], first):
        yield start, part[column.name].combine_chunks()


def _taken(table: Path, rows: np.ndarray, column: TokenColumn) -> Iterator[pa.ListArray]:
    """Yield what a column holds of rows, given in ascending order."""
    for start, codes in _parts(table, column, int(rows[0])):
        first, last = np.searchsorted(rows, [start, start + len(codes)])
        if first < last:
            yield codes.take(pa.array(rows[first:last] - start))
        if last == len(rows):
            return
