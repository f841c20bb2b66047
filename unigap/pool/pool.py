"""The pool: an append-only folder of rounds, each a few Parquet tables under a manifest; it knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from unigap.files.durable import (
    MANIFEST,
    Sealed,
    digest,
    is_temporary,
    make_folder,
    render_json,
    seal,
    unseal,
    write_durable,
)
from unigap.files.outputs import POOL_FILE
from unigap.files.writer_lock import WriterLock
from unigap.pool.annotations import Annotations
from unigap.pool.chain import Chain
from unigap.pool.damage import find_damage
from unigap.pool.head import lost_rounds, read_head, write_first_head
from unigap.pool.layout import (
    CANDIDATES_FILE,
    HEAD,
    JUDGMENTS_FILE,
    PROMPTS_FILE,
    RECIPE,
    REFERENCES,
    find_rounds,
    round_folder,
)
from unigap.pool.shards import RoundWriter, plain_recipe
from unigap.pool.sidecar import Sidecar
from unigap.pool.tables import CANDIDATES, JUDGMENTS, PROMPTS, candidates_of, judgments_of, prompts_of, read_parquet
from unigap.records import Candidate, Judgment, Prompt

FORMAT = "unigap-pool-1"


class Pool:
    """An append-only folder of rounds; open one with ``Pool.open``, begin one with ``Pool.create``.

    A committed round is checked against its manifest the first time this object reads it. Rounds that other processes
    commit meanwhile are seen at once; partial rounds are never seen.

    Attributes:
        folder: Where the pool lies.
        model: Fingerprint of the model family whose codes it holds.
    """

    def __init__(self, folder: Path, identity: Sealed) -> None:
        self.folder = folder
        self.model = str(identity.content["model"])
        self._head = read_head(folder)
        self._chain = Chain(folder, identity, self._head)
        self._references = _references(folder)
        self._annotations = Annotations(folder)

    @classmethod
    def create(cls, folder: str | Path, model: str) -> Pool:
        """Begin an empty pool.

        Args:
            folder: A folder that is empty or does not exist yet.
            model: Fingerprint of the model family the codes will belong to.

        Raises:
            ValueError: The folder is not empty, or is a file.
            OSError: The folder cannot be written.
        """
        folder = Path(folder)
        _check_unused(folder)
        make_folder(folder)
        identity = {"format": FORMAT, "model": model}
        with WriterLock(folder):
            _check_unused(folder)  # another process may have begun one meanwhile
            _references(folder).create()
            write_first_head(folder, digest(render_json(identity).encode()))
            # The last file written makes the folder a pool; killed before it, create begins again.
            write_durable(folder / POOL_FILE, seal(identity))
        return cls.open(folder, model)

    @classmethod
    def open(cls, folder: str | Path, model: str | None = None) -> Pool:
        """Open a pool that exists.

        Args:
            folder: Where it lies.
            model: Fingerprint of the model that is going to use it; None accepts the pool of any model.

        Raises:
            ValueError: There is no pool, its ``pool.json`` or ``head.json`` is damaged, or its codes belong to another
                model.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"there is no pool at {folder}: no such folder; check the path")
        if not (folder / POOL_FILE).exists():
            raise ValueError(f"{folder} is not a pool: it has no {POOL_FILE}; check the path")
        identity = unseal(folder / POOL_FILE)
        if identity.content.get("format") != FORMAT or "model" not in identity.content:
            raise ValueError(f"{folder} is not a pool this version can read: its format is not {FORMAT!r}")
        pool = cls(folder, identity)
        if model is not None and model != pool.model:
            raise ValueError(
                f"the pool at {folder} belongs to model {pool.model!r}, not to {model!r}: its codes mean nothing to "
                "another model; use that model or another pool"
            )
        return pool

    @property
    def rounds(self) -> tuple[int, ...]:
        """Numbers of the committed rounds: 0, 1, ... without gaps.

        Raises:
            ValueError: A round is missing, also one from the end that ``head.json`` names.
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
        """Begin the next round, or continue it where a killed process left it.

        Args:
            round: Number of the round; it must be the one after the last committed.
            recipe: Everything the candidates depend on (seed, sampling, judge, weights), as plain JSON.
            lead: Keep other runs from writing the round until it is committed; one process of a run does.

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
        return RoundWriter(self.folder, round, plain_recipe(recipe), self._chain.digest(len(rounds)), lead)

    def candidates(self, upto: int | None = None) -> list[Candidate]:
        """Candidates of rounds 0 to ``upto`` inclusive, sorted by round, prompt id and index.

        Args:
            upto: Last round to read; None reads all committed rounds, -1 none.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the file is named.
        """
        return [
            row for round in self._upto(upto) for row in candidates_of(self._table(round, CANDIDATES_FILE, CANDIDATES))
        ]

    def judgments(self, judge: str | None = None, upto: int | None = None) -> list[Judgment]:
        """Judgments of rounds 0 to ``upto`` inclusive, in the order of ``candidates``, then by judge.

        What was said of them later, by ``annotate``, is among them.

        Args:
            judge: Only what this judge said; None for all judges.
            upto: Last round to read; None reads all committed rounds, -1 none.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the file is named.
        """
        rows = [
            row for round in self._upto(upto) for row in judgments_of(self._table(round, JUDGMENTS_FILE, JUDGMENTS))
        ]
        rows = [row for row in rows if judge in (None, row.judge)]
        late = self._annotations.read(judge)
        if late:
            order = {candidate.id: i for i, candidate in enumerate(self.candidates(upto))}
            rows += [row for row in late if row.candidate_id in order]
            rows.sort(key=lambda row: (order[row.candidate_id], row.judge))
        return rows

    def logits(self, judge: str, upto: int | None = None) -> dict[str, float]:
        """Log-odds of yes by candidate id: what ``judge`` said of the candidates of rounds 0 to ``upto`` inclusive.

        Args:
            judge: Name of the judge; one that said nothing gives an empty dict.
            upto: Last round to read; None reads all committed rounds, -1 none.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the file is named.
        """
        return {judgment.candidate_id: judgment.logit for judgment in self.judgments(judge, upto)}

    def prompts(self, upto: int | None = None) -> dict[int, list[Prompt]]:
        """Prompts asked in each of the rounds 0 to ``upto`` inclusive, in the order they were given to ``commit``.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a file is damaged; the file is named.
        """
        return {round: prompts_of(self._table(round, PROMPTS_FILE, PROMPTS)) for round in self._upto(upto)}

    def recipe(self, round: int) -> dict[str, Any]:
        """How a committed round was drawn.

        Raises:
            ValueError: The round is not in the pool, or its files are damaged.
        """
        if round not in self.rounds:
            raise ValueError(f"round {round} is not in {self.folder}, which has {len(self.rounds)} rounds")
        return unseal(self._chain.checked(round) / RECIPE).content

    def references(self, model_key: str) -> dict[str, float]:
        """Log-likelihoods of candidates under a reference model, by candidate id, in nats.

        Args:
            model_key: Name of the reference model, e.g. a digest of its weights.

        Raises:
            ValueError: A file is damaged; the file is named.
        """
        return self._references.read(model_key)

    def add_references(self, model_key: str, logps: Mapping[str, float]) -> None:
        """Store reference log-likelihoods; all of them are durable when this returns, or none is stored.

        One process of a run calls it; another run that does so at the same time waits.

        Args:
            model_key: Name of the reference model.
            logps: Log-likelihood by candidate id, in nats; one that is stored already with the same value is fine.

        Raises:
            ValueError: A value is not finite, or another one is stored for the same candidate.
            OSError: The disk is full or the folder read-only; what was stored before is safe.
        """
        self._references.add(model_key, logps)

    def annotate(self, judge: str, logits: Mapping[str, float]) -> None:
        """Store what a judge said after the rounds were committed; all of it is durable on return, or none is stored.

        Another process that does so at the same time waits. The state a checkpoint stores does not change.

        Args:
            judge: Its name; none that spoke while a round was drawn.
            logits: Log-odds of yes by candidate id; one that is stored already with the same value is fine.

        Raises:
            ValueError: The name is empty or taken, a candidate is not in the pool, a value is not finite, or another
                one is stored for the same candidate.
            OSError: The disk is full or the folder read-only; what was stored before is safe.
        """
        spoke = {row.judge for row in self.judgments()} - {*self._annotations.judges}
        if not judge or judge in spoke:
            raise ValueError(
                f"{judge!r} cannot name annotations of {self.folder}: it is empty, or a judge of its rounds is called "
                "so; choose another name"
            )
        strangers = sorted({*logits} - {candidate.id for candidate in self.candidates()})
        if strangers:
            raise ValueError(
                f"{len(strangers)} of the candidates are not in {self.folder}, first {strangers[0][:80]!r}; "
                "give the pool they were exported from"
            )
        self._annotations.add(judge, logits)

    def state(self, upto: int | None = None) -> dict[str, int | str]:
        """What a checkpoint stores to find the same data again.

        Args:
            upto: Last round the checkpoint was trained on; None for all committed rounds, -1 for none.

        Returns:
            ``rounds``, their number, and ``sha256``, a digest that covers every byte of them.

        Raises:
            ValueError: Round ``upto`` is not in the pool, or a manifest is damaged.
        """
        count = len(self._upto(upto))
        return {"rounds": count, "sha256": self._chain.digest(count)}

    def check_state(self, state: Mapping[str, int | str]) -> None:
        """Check that the rounds named by ``state`` are all there, byte for byte; newer rounds do not matter.

        Raises:
            ValueError: A round is missing or altered; the remedy is named.
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
            One line for each file that is damaged, missing or does not belong there; empty if the pool is sound.
            What killed writes left behind is no damage.
        """
        return find_damage(self.folder)

    def _upto(self, upto: int | None) -> range:
        count = len(self.rounds)
        last = count - 1 if upto is None else upto
        if not -1 <= last < count:
            raise ValueError(f"round {last} is not in {self.folder}, which has {count} rounds, counted from 0")
        return range(last + 1)

    def _table(self, round: int, name: str, schema: pa.Schema) -> pa.Table:
        return read_parquet(self._chain.checked(round) / name, schema)


def _references(folder: Path) -> Sidecar:
    return Sidecar(folder, REFERENCES, "reference", "logp", "models")


def _check_unused(folder: Path) -> None:
    """Make sure that a folder does not exist, or is empty but for what a killed ``Pool.create`` leaves."""
    if not folder.exists() or (folder.is_dir() and _is_unused(folder)):
        return
    raise ValueError(f"cannot create a pool at {folder}: it is not an empty folder; open it or choose another")


def _is_unused(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir() if not is_temporary(path.name)}
    inside = {path.name for path in (folder / REFERENCES).glob("*") if not is_temporary(path.name)}
    return names <= {REFERENCES, HEAD} and inside <= {MANIFEST}
