"""The pool: an append-only folder of rounds, each a few Parquet tables with a manifest; independent of any model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unigap.files.durable import Sealed, unseal
from unigap.files.outputs import POOL_FILE
from unigap.pool.annotations import Annotations
from unigap.pool.candidates import Candidates, CandidateTable, Numbers
from unigap.pool.chain import Chain
from unigap.pool.columns import Column, add_verdicts, judges_in
from unigap.pool.damage import find_damage
from unigap.pool.head import lost_rounds, read_head
from unigap.pool.identity import format_of, read_identity, references_of, write_empty_pool
from unigap.pool.layout import (
    BEHAVIOUR_KEY,
    JUDGMENTS_FILE,
    PROMPTS_FILE,
    RECIPE,
    find_rounds,
    round_folder,
)
from unigap.pool.parquet import read_parquet
from unigap.pool.schemas import JUDGMENTS, PROMPTS
from unigap.pool.shards import RoundWriter, plain_recipe
from unigap.pool.sidecar import Sidecar
from unigap.pool.tables import judgments_of, prompts_of
from unigap.records import DrawingFormat, Judgment, Prompt


class Pool:
    """An append-only folder of rounds; made by ``Pool.open`` or ``Pool.create``.

    A committed round is checked against its manifest the first time this object reads it, and its columns are kept;
    drawings are read from disk when they are used. Memory is about 50 bytes a candidate. Rounds that other processes
    commit are visible at once; partial rounds are never visible.

    Attributes:
        folder: Folder of the pool.
        model: Fingerprint of the model family whose drawings it holds.
        format: Type and shape of the drawings; None for codes, int32 (M,).
    """

    def __init__(self, folder: Path, identity: Sealed) -> None:
        self.folder = folder
        self.model = str(identity.content["model"])
        self.format = format_of(identity.content, folder / POOL_FILE)
        self._head = read_head(folder)
        self._chain = Chain(folder, identity, self._head)
        self._references = references_of(folder)
        self._annotations = Annotations(folder)
        # called later: check_state begins the chain anew
        self._rows = CandidateTable(lambda round: self._chain.checked(round), self.format)
        self._verdicts: dict[str, Column] = {}
        self._logps: dict[str, Column] = {}

    @classmethod
    def create(cls, folder: str | Path, model: str, format: DrawingFormat | None = None) -> Pool:
        """Create an empty pool.

        Args:
            folder: A folder that is empty or does not exist.
            model: Fingerprint of the model family of the drawings.
            format: Type and shape of the drawings; None for codes, int32 (M,).

        Raises:
            ValueError: The folder is not empty, or is a file.
            OSError: The folder cannot be written.
        """
        write_empty_pool(Path(folder), model, format)
        return cls.open(folder, model)

    @classmethod
    def open(cls, folder: str | Path, model: str | None = None) -> Pool:
        """Open an existing pool.

        Args:
            folder: Folder of the pool.
            model: Fingerprint of the model that will use it; None accepts the pool of any model.

        Raises:
            ValueError: There is no pool, its ``pool.json`` or ``head.json`` is damaged, or its drawings belong to
                another model.
        """
        folder = Path(folder)
        pool = cls(folder, read_identity(folder))
        if model is not None and model != pool.model:
            raise ValueError(
                f"the pool at {folder} belongs to model {pool.model!r}, not to {model!r}: its drawings mean nothing to "
                "another model; use that model or another pool"
            )
        return pool

    @property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of the committed rounds: 0, 1, ... without gaps.

        Raises:
            ValueError: A round is missing, including one from the end that ``head.json`` lists.
        """
        found = find_rounds(self.folder)
        for expected, number in enumerate(found):
            if number != expected:
                raise ValueError(
                    f"{round_folder(self.folder, expected)} is missing though round {number} is there; restore it"
                )
        for fault in lost_rounds(self.folder, self._head, len(found)) if self._head else []:
            raise ValueError(fault)
        return tuple(found)

    def writer(self, round: int, recipe: Mapping[str, Any], lead: bool = True) -> RoundWriter:
        """Begin the next round, or continue it after a kill.

        Args:
            round: Number of the round; must be the one after the last committed round.
            recipe: Everything the candidates depend on (seed, sampling, judge, weights), as plain JSON.
            lead: Lock the round against other runs until it is committed; true in one process of a run.

        Raises:
            ValueError: The round is committed or not the next one, was begun with another recipe, or is being written
                by another run.
            OSError: The folder cannot be written.
        """
        rounds = self.rounds
        if round in rounds:
            raise ValueError(f"round {round} of {self.folder} is committed; committed rounds are never changed")
        if round != len(rounds):
            raise ValueError(f"the next round of {self.folder} is {len(rounds)}, not {round}")
        return RoundWriter(self.folder, round, plain_recipe(recipe), self._chain.digest(len(rounds)), lead, self.format)

    def candidates(self, upto: int | None = None) -> Candidates:
        """Return the candidates of rounds 0 to ``upto`` inclusive, sorted by round, prompt id and index.

        Drawings are read when they are used: cheaply in this order, or after ``Candidates.stage`` in any order.

        Args:
            upto: Last round to read; None reads all committed rounds, -1 none.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the message names it.
        """
        count = self._rows_upto(upto)
        return Candidates(self._rows, np.arange(count, dtype=np.int32), whole=True)

    def check_behaviour(self, round: int) -> None:
        """Check that a round stores the log-probability of each token, see ``Candidates.with_behaviour``.

        Raises:
            ValueError: It does not, or is not in the pool.
        """
        if BEHAVIOUR_KEY not in self.recipe(round):
            raise ValueError(
                f"round {round} of pool {self.folder} was drawn without the log-likelihoods under its sampling recipe, "
                "which this objective needs; use a new pool folder"
            )

    def judgments(self, judge: str | None = None, upto: int | None = None) -> list[Judgment]:
        """Read the judgments of rounds 0 to ``upto`` inclusive, in the order of ``candidates``, then by judge.

        Judgments added later by ``annotate`` are included. All are in memory: for large pools use ``logits``.

        Args:
            judge: Name of the judge; None reads all judges.
            upto: Last round to read; None reads all committed rounds, -1 none.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the message names it.
        """
        rows = [
            row for round in self._upto(upto) for row in judgments_of(self._table(round, JUDGMENTS_FILE, JUDGMENTS))
        ]
        rows = [row for row in rows if judge in (None, row.judge)]
        count = self._rows_upto(upto)
        added = [
            (row, Judgment(id, name, logit))
            for name in self._annotations.judges
            if judge in (None, name)
            for id, logit in self._annotations.read(self._annotations.tables(name))
            if (row := self._rows.row_of(id)) is not None and row < count
        ]
        if added:
            placed = [(self._rows.row_of(row.candidate_id), row) for row in rows] + added
            rows = [row for _, row in sorted(placed, key=lambda pair: (pair[0], pair[1].judge))]
        return rows

    def logits(self, judge: str, upto: int | None = None) -> Numbers:
        """Return the log-odds of yes of one judge, by candidate id, for rounds 0 to ``upto`` inclusive.

        Args:
            judge: Name of the judge; a judge without judgments gives an empty mapping.
            upto: Last round to read; None reads all committed rounds, -1 none.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the message names it.
        """
        count = self._rows_upto(upto)
        column = self._verdicts.setdefault(judge, Column(self._rows))
        for round in range(column.rounds, len(self._upto(upto))):
            column.add_round()
            add_verdicts(column, self._rows, round, self._chain.checked(round) / JUDGMENTS_FILE, judge)
        self._read_new(column, self._annotations, judge)
        return Numbers(self._rows, column.value_N[:count], column.ranking)

    def prompts(self, upto: int | None = None) -> dict[int, list[Prompt]]:
        """Read the prompts of each of the rounds 0 to ``upto`` inclusive, in the order given to ``commit``.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the message names it.
        """
        return {round: self.prompts_of(round) for round in self._upto(upto)}

    def prompts_of(self, round: int) -> list[Prompt]:
        """Read the prompts of a committed round, in the order given to ``commit``.

        Raises:
            ValueError: A file is missing or damaged; the message names it.
        """
        return prompts_of(self._table(round, PROMPTS_FILE, PROMPTS))

    def recipe(self, round: int) -> dict[str, Any]:
        """Read the recipe of a committed round.

        Raises:
            ValueError: The round is not in the pool, or its files are damaged.
        """
        if round not in self.rounds:
            raise ValueError(f"round {round} is not in {self.folder}, which has {len(self.rounds)} rounds")
        return unseal(self._chain.checked(round) / RECIPE).content

    def references(self, model_key: str) -> Numbers:
        """Return log-likelihoods of candidates under a reference model, by candidate id, in nats.

        Args:
            model_key: Name of the reference model, e.g. a digest of its weights.

        Raises:
            ValueError: A file is damaged; the message names it.
        """
        count = self._rows_upto(None)
        column = self._logps.setdefault(model_key, Column(self._rows))
        while column.rounds < len(self.rounds):
            column.add_round()
        self._read_new(column, self._references, model_key)
        return Numbers(self._rows, column.value_N[:count], column.ranking)

    def add_references(self, model_key: str, logps: Mapping[str, float]) -> None:
        """Store reference log-likelihoods durably, all of them or none.

        Call it in one process of a run; another run that calls it at the same time waits.

        Args:
            model_key: Name of the reference model.
            logps: Log-likelihood by candidate id, in nats. Storing the same value again is allowed.

        Raises:
            ValueError: A value is not finite, or differs from the stored one of the same candidate.
            OSError: The disk is full or the folder read-only; earlier references are safe.
        """
        self._references.add(model_key, logps, lambda: self.references(model_key))

    def annotate(self, judge: str, logits: Mapping[str, float]) -> None:
        """Store judgments on candidates of committed rounds durably, all of them or none.

        Another process that calls it at the same time waits. ``state`` does not change.

        Args:
            judge: Name of the judge; must differ from the judges of the rounds.
            logits: Log-odds of yes by candidate id. Storing the same value again is allowed.

        Raises:
            ValueError: The name is empty or taken, a candidate is not in the pool, or a value is not finite or differs
                from the stored one of the same candidate.
            OSError: The disk is full or the folder read-only; earlier annotations are safe.
        """
        tables = [self._chain.checked(round) / JUDGMENTS_FILE for round in self.rounds]
        judges_of_rounds = set().union(*map(judges_in, tables))
        if not judge or judge in judges_of_rounds:
            raise ValueError(
                f"{judge!r} cannot name annotations of {self.folder}: it is empty, or a judge of its rounds is called "
                "so; choose another name"
            )
        self._rows_upto(None)
        unknown = sorted(name for name in logits if self._rows.row_of(name) is None)
        if unknown:
            raise ValueError(
                f"{len(unknown)} of the candidates are not in {self.folder}, first {unknown[0][:80]!r}; "
                "give the pool they were exported from"
            )
        self._annotations.add(judge, logits, lambda: self.logits(judge))

    def state(self, upto: int | None = None) -> dict[str, int | str]:
        """Return the state of the pool for a checkpoint, see ``check_state``.

        Args:
            upto: Last round the checkpoint was trained on; None for all committed rounds, -1 for none.

        Returns:
            ``rounds``, the number of rounds, and ``sha256``, a digest that covers every byte of them.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a manifest is damaged.
        """
        count = len(self._upto(upto))
        return {"rounds": count, "sha256": self._chain.digest(count)}

    def check_state(self, state: Mapping[str, int | str]) -> None:
        """Check that the rounds of ``state`` exist unchanged, byte for byte; newer rounds are ignored.

        Raises:
            ValueError: A round is missing or altered; the message names the remedy.
        """
        count, expected = state.get("rounds"), state.get("sha256")
        if not isinstance(count, int) or count < 0 or not isinstance(expected, str):
            raise ValueError(f"not the state of a pool: {dict(state)!r}")
        self._head = read_head(self.folder)
        if count > len(self.rounds):
            raise ValueError(
                f"the checkpoint was trained on {count} rounds but {self.folder} has {len(self.rounds)}; "
                "give the pool the checkpoint was made with"
            )
        self._chain = Chain(self.folder, unseal(self.folder / POOL_FILE), self._head)
        if self._chain.digest(count) != expected:
            raise ValueError(
                f"the first {count} rounds of {self.folder} are not those the checkpoint was trained on; "
                "give the pool the checkpoint was made with"
            )
        for round in range(count):
            self._chain.checked(round)

    def verify(self) -> list[str]:
        """Read every byte of the pool again.

        Returns:
            One line for each damaged, missing or foreign file; empty if the pool is sound. Files that a killed write
            left are no damage.
        """
        return find_damage(self.folder)

    def _upto(self, upto: int | None) -> range:
        count = len(self.rounds)
        last = count - 1 if upto is None else upto
        if not -1 <= last < count:
            raise ValueError(f"round {last} is not in {self.folder}, which has {count} rounds, counted from 0")
        return range(last + 1)

    def _rows_upto(self, upto: int | None) -> int:
        """Read the columns of the rounds that are new; return the number of candidates up to a round."""
        count = len(self._upto(upto))
        self._rows.read_upto(count)
        return self._rows.starts[count]

    @staticmethod
    def _read_new(column: Column, source: Annotations | Sidecar, key: str) -> None:
        """Read the tables that other calls and processes have added."""
        fresh = {*source.tables(key)} - column.read
        column.set(source.read(fresh))
        column.read |= fresh

    def _table(self, round: int, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
        return read_parquet(self._chain.checked(round) / name, schema, columns)
