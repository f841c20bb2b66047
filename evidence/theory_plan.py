"""Sizes of the theory experiment, and the pool and weights that its arms share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from unigap.callbacks.dynamics_probes import WatchedImages, pick_probes
from unigap.judges import OracleJudge, SelfJudge
from unigap.loop.selection import accepted_rows
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.records import Candidate


@dataclass(frozen=True)
class TheoryPlan:
    """Sizes of the experiment.

    Attributes:
        checkpoint: The embedded model, ``shapes`` or a folder.
        seeds: Seeds of candidates, training order and test images; at least three for intervals.
        per_cell: Training prompts for each (category, difficulty).
        candidates: Images sampled for each training prompt.
        keep: Maximum number of accepted images of a prompt to train on.
        epochs: Epochs of self-improvement.
        lr: Learning rate.
        batch_size: Rows in a step.
        watch_every: Steps between two predictions during self-improvement; kernels are measured five times less often.
        test_per_cell: Test prompts for each (category, difficulty).
        test_candidates: Images sampled for each test prompt.
        step_probes: Probes of each group in the one-step experiment.
        alternatives: Prompts in the denominator of Bayes' formula, including the probe's own.
        train_rows: Images (SFT) or pairs (DPO) in the batch of the one-step experiment.
        coupling_probes: Probes of each group in the coupling experiment.
        shared_steps: Steps that train the control model to understand its own image tokens.
        shared_batch: Lessons in a step.
        shared_per_cell: Prompts of the control model for each (category, difficulty), four images each.
    """

    checkpoint: str = "shapes"
    seeds: tuple[int, ...] = (0, 1, 2)
    per_cell: int = 30
    candidates: int = 8
    keep: int = 4
    epochs: int = 4
    lr: float = 5.0e-4
    batch_size: int = 32
    watch_every: int = 20
    test_per_cell: int = 20
    test_candidates: int = 8
    step_probes: int = 8
    alternatives: int = 4
    train_rows: int = 32
    coupling_probes: int = 24
    shared_steps: int = 2000
    shared_batch: int = 24
    shared_per_cell: int = 16

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"give at least one seed, each once, got {list(self.seeds)}; three or more give intervals")

    def recipe(self) -> dict[str, object]:
        """Return everything that the results depend on, including the weights."""
        return dataclasses.asdict(self) | {"weights": Janus(self.checkpoint).weights_digest()}


@dataclass(frozen=True)
class Judged:
    """Candidates of the base model with both verdicts.

    Attributes:
        candidates: The candidates.
        own: Log-odds of yes of the model's own judge, by candidate id.
        right: External verdict, by candidate id.
    """

    candidates: Sequence[Candidate]
    own: Mapping[str, float]
    right: dict[str, bool]

    def probes(self, per_group: int, seed: int) -> WatchedImages:
        """Pick probes of all four groups."""
        accepted = {name: logit >= 0 for name, logit in self.own.items()}
        return pick_probes(self.candidates, accepted, self.right, per_group, seed)

    def accepted(self, keep: int) -> Sequence[Candidate]:
        """Return the candidates that self-improvement trains on."""
        return accepted_rows(self.candidates, self.own, keep=keep)


def seed_folder(work: Path, seed: int) -> Path:
    """Return the folder of a seed's pool, images and weights."""
    return work / f"seed-{seed}"


def read_pool(folder: Path) -> Judged:
    """Read the first round of a seed's pool."""
    pool = Pool.open(folder / "pool")
    own = pool.logits(SelfJudge().name, upto=0)
    right = {name: logit > 0 for name, logit in pool.logits(OracleJudge().name, upto=0).items()}
    return Judged(pool.candidates(upto=0), own, right)


def trained_state(folder: Path) -> dict[str, torch.Tensor]:
    """Load the trunk after a seed's self-improvement."""
    return load_file(folder / "trained.safetensors")
