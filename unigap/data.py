"""Data module of a run: prompts, and training rows from a pool that grows between epochs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Sampler

from unigap.evaluation.probe_set import ProbeSet
from unigap.loop.members import stage_members
from unigap.loop.progress import batches_behind, batches_trained
from unigap.loop.selection import Selection, acceptance
from unigap.objectives import Objective, Row, RowBatch
from unigap.pool import Pool
from unigap.prompt_sets.contamination import check_no_overlap
from unigap.prompt_sets.loading import load_prompts
from unigap.records import DrawingFormat, Prompt
from unigap.seeds import seed_of_part
from unigap.world import find_world


@dataclass(frozen=True)
class PromptRows:
    """Prompts of one evaluation batch and their numbers in the whole set, int64 (B,)."""

    prompts: tuple[Prompt, ...]
    index_B: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PromptRows:
        """The batch on another device (Lightning moves objects that have this method)."""
        return dataclasses.replace(self, index_B=self.index_B.to(device))


class EpochBatches(Sampler[list[int]]):
    """Batches of row numbers whose order is a function of (seed, epoch, pool version) alone.

    Every rank gets equally many full batches; the rows left over sit this epoch out.

    Args:
        rows: Number of rows in the pool.
        batch_size: Rows a batch on each rank; fewer where the pool is smaller.
        key: What the order depends on, beside the epoch.
        epoch: The epoch; Lightning counts it on by ``set_epoch``.
        rank: Number of this process.
        world: Number of processes.
        start: Batches of the first epoch that were trained on before a resume.
        ease_R: How easy each row is; if given, easier rows come earlier in an epoch, equal ones at random.
        batches: Batches of an epoch: several passes over the rows, each in its own order, or part of one; 0 is one
            pass.
        get_ready: Called with the rows of this process before the first batch of a pass.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        key: Sequence[int],
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        ease_R: Sequence[float] = (),
        batches: int = 0,
        get_ready: Callable[[np.ndarray], None] = lambda rows: None,
    ) -> None:
        self.step = rows_of_step(rows, batch_size, world)
        self.size = self.step // world
        self.rows, self.key, self.rank, self.world = rows, tuple(key), rank, world
        self.epoch, self.start, self.ease_R, self._get_ready = epoch, start, ease_R, get_ready
        self.pass_length = rows // self.step if self.step else 0
        self.batches = batches or self.pass_length

    def set_epoch(self, epoch: int) -> None:
        """Go on to another epoch, from its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.batches if self.pass_length else 0

    def __iter__(self) -> Iterator[list[int]]:
        numbers = range(self.start, len(self))
        for turn, in_pass in itertools.groupby(numbers, lambda number: number // self.pass_length):
            order = self._order(turn)
            firsts = [(number % self.pass_length * self.world + self.rank) * self.size for number in in_pass]
            self._get_ready(np.array([row for first in firsts for row in order[first : first + self.size]], np.int64))
            for first in firsts:
                yield order[first : first + self.size]

    def _order(self, turn: int) -> list[int]:
        """Return the order of the rows in a pass of the epoch."""
        key = (*self.key, self.epoch, turn) if turn else (*self.key, self.epoch)
        generator = torch.Generator().manual_seed(hash(key) % 2**63)
        order = torch.randperm(self.rows, generator=generator).tolist()
        if self.ease_R:
            # leave rows over at random, not the hardest ones
            order = sorted(order[: self.pass_length * self.step], key=lambda row: -self.ease_R[row])
        return order


class PoolData(LightningDataModule):
    """Training rows from a pool of judged candidates, and the prompts and questions to evaluate on.

    Args:
        prompts: Prompts to improve on: a world by its name, as ``shapes``, a published set as ``NAME:PATH``, or a
            ``.txt`` or ``.jsonl`` file.
        pool: Folder of the pool; it is begun where there is none. Null is ``pool`` in the run folder.
        batch_size: Rows a training batch on each process.
        per_cell: At most this many training prompts for each (category, difficulty); null takes all.
        eval_prompts: Prompts to evaluate on, as ``prompts``; null takes the validation split of the same source.
        eval_split: Split of the evaluation prompts.
        eval_per_cell: At most this many evaluation prompts for each (category, difficulty).
        eval_batch: Evaluation prompts drawn at once.
        exam_pictures: Pictures on which understanding is examined, where the prompts are a world's.
        exam_seed: Which pictures; null follows the run's seed.
        seed: Decides the order of rows and the random numbers of each step; null follows the run's seed.
        order: ``random``, or ``easy_first``: in every epoch rows of those prompts come first of whose candidates the
            selecting judge accepted the largest share.
    """

    def __init__(
        self,
        prompts: str = "shapes",
        pool: str | None = None,
        batch_size: int = 32,
        per_cell: int | None = None,
        eval_prompts: str | None = None,
        eval_split: str = "validation",
        eval_per_cell: int | None = 16,
        eval_batch: int = 128,
        exam_pictures: int = 300,
        exam_seed: int | None = None,
        seed: int | None = None,
        order: Literal["random", "easy_first"] = "random",
    ) -> None:
        super().__init__()
        if order not in ("random", "easy_first"):
            raise ValueError(f"unknown order {order!r}; choose one of: random, easy_first")
        for name, value in (("batch_size", batch_size), ("eval_batch", eval_batch)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if exam_pictures < 0:
            raise ValueError(f"exam_pictures must be >= 0, got {exam_pictures}")
        self._folder = pool
        self.batch_size, self.eval_batch, self.exam_pictures = batch_size, eval_batch, exam_pictures
        self.exam_seed, self.seed = seed_of_part("probe set", exam_seed), seed_of_part("order", seed)
        self.order = order
        self.prompts = load_prompts(prompts, "improve", per_cell)
        self.eval_source = eval_prompts or prompts
        self.eval_prompts = load_prompts(self.eval_source, eval_split, eval_per_cell)
        check_no_overlap(self.prompts, self.eval_prompts)
        world = find_world(prompts)
        self.probes: ProbeSet | None = None
        if world and exam_pictures:
            self.probes = world.probe_source(eval_split, self.exam_seed).load(exam_pictures)
        # what is not given, known pairs and quizzes, comes from here
        self.world = world or find_world(self.eval_source)
        self.rounds = 0
        self._pool: Pool | None = None
        self._rows: Sequence[Row] = []
        self._ease: list[float] = []
        self._steps = 0
        self._references: Mapping[str, float] = {}
        self._objective: Objective | None = None
        self._restored: dict[str, Any] = {}

    @property
    def pool_folder(self) -> Path:
        """Folder of the pool.

        Raises:
            ValueError: None was given.
        """
        if not self._folder:
            raise ValueError("PoolData has no folder for its pool; give --run, or pool")
        return Path(self._folder)

    @property
    def pool(self) -> Pool:
        """The pool that ``open_pool`` opened."""
        assert self._pool is not None
        return self._pool

    @property
    def rows(self) -> Sequence[Row]:
        """Training rows of the present epoch."""
        return self._rows

    def open_pool(self, model_digest: str, create: bool, format: DrawingFormat | None = None) -> Pool:
        """Open the pool; if there is none and the run is new, ``create`` begins one.

        Args:
            model_digest: Fingerprint of the model family of the drawings.
            create: Whether to begin a pool.
            format: Type and shape of the drawings of a pool that is begun; None for codes (M,).

        Raises:
            ValueError: The folder holds another model's pool, a damaged one or something else, or the prompts are not
                those of the run that continues.
        """
        if create and not self._restored and not (self.pool_folder / "pool.json").exists():
            Pool.create(self.pool_folder, model_digest, format)
        self._pool = Pool.open(self.pool_folder, model_digest)
        if self._restored:
            self._pool.check_state(self._restored)
            if self._restored["prompts"] != self._prompts_digest():
                raise ValueError(
                    "the prompts this run began with are not those that data.prompts and data.eval_prompts hold now; "
                    "put the earlier files back, or begin a new run"
                )
        return self._pool

    def _prompts_digest(self) -> str:
        return hashlib.sha256(repr((self.prompts, self.eval_prompts)).encode()).hexdigest()

    def refresh(self, objective: Objective, selection: Selection, rounds: int, steps: int = 0) -> None:
        """Make the training rows of the next epochs.

        Args:
            objective: Makes rows of candidates and logits.
            selection: The judged candidates of the first ``rounds`` rounds.
            rounds: How many rounds that are.
            steps: Optimizer steps of an epoch; 0 is one pass over the rows.

        Raises:
            ValueError: No candidate was accepted, or no pair has a preferred one.
        """
        candidates, logits = selection.candidates, selection.logits
        self._rows = objective.rows(candidates, logits)
        self._objective, self.rounds, self._steps = objective, rounds, steps
        if not self._rows:
            why = objective.nothing_to_learn(logits)
            raise ValueError(f"pool {self.pool_folder}, {rounds} round(s): {why}")
        if self.order == "easy_first":
            share = acceptance(candidates, logits, objective.threshold)
            self._ease = [share[row.prompt.id] for row in self._rows]

    def use_references(self, references: Mapping[str, float]) -> None:
        """Set the reference log-likelihoods of the rows' candidates, by candidate id, in nats (DPO)."""
        self._references = references

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the present rows; their order is a function of (seed, epoch, rounds)."""
        assert self._objective is not None and self.trainer is not None
        sampler = EpochBatches(
            len(self._rows),
            self.batch_size,
            (self.seed, self.rounds),
            self.trainer.current_epoch,
            self.trainer.global_rank,
            self.trainer.world_size,
            batches_behind(self.trainer),
            self._ease,
            self._steps * self.trainer.accumulate_grad_batches,
            self._stage,
        )
        self._check_place(sampler)
        if not len(sampler):
            raise ValueError(
                f"{len(self._rows)} rows cannot be shared by {self.trainer.world_size} processes; draw more"
            )
        return DataLoader(self._rows, batch_sampler=sampler, collate_fn=self._collate)  # type: ignore[arg-type]

    def _check_place(self, sampler: EpochBatches) -> None:
        """Check that the batches to skip hold exactly the rows that this epoch has trained on."""
        if sampler.start and self._restored and sampler.start * sampler.step != self._restored["rows_trained"]:
            raise ValueError(
                f"this run is {self._restored['rows_trained']} rows into an epoch of {len(self._rows)}, which batches "
                f"of {self.batch_size} rows do not reach; set data.batch_size back"
            )

    def _stage(self, places: np.ndarray) -> None:
        assert self._objective is not None
        stage_members(self._rows, places, self._objective.members)

    def _collate(self, rows: list[Any]) -> RowBatch:
        assert self._objective is not None
        return self._objective.collate(rows, self._references)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the evaluation prompts."""
        return self._share(self.eval_prompts)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the training prompts."""
        return self._share(self.prompts)

    def _share(self, prompts: Sequence[Prompt]) -> DataLoader[Any]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            range(rank, len(prompts), world),  # type: ignore[arg-type]
            batch_size=self.eval_batch,
            collate_fn=lambda numbers: PromptRows(tuple(prompts[i] for i in numbers), torch.tensor(numbers)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return which rounds were trained on, and how many rows of the present epoch on all processes."""
        if self._pool is None:
            return {}
        assert self.trainer is not None
        step = rows_of_step(len(self._rows), self.batch_size, self.trainer.world_size)
        return {
            **self._pool.state(upto=self.rounds - 1),
            "rows_trained": batches_trained(self.trainer) * step,
            "prompts": self._prompts_digest(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``. Only training does; other verbs may use another pool."""
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            self._restored, self.rounds = state, int(state["rounds"])


def rows_of_step(rows: int, batch_size: int, world: int) -> int:
    """Return how many rows one step takes on all processes together."""
    return min(batch_size, rows // world) * world
