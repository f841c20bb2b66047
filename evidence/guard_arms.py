"""The runs of the guard experiment: three objectives, each with a clean judge and with corrupted ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evidence.fit import COUNTED, Overrides, spec
from unigap.judges.base import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate
from unigap.worlds.shapes.oracle import read

SELF = spec("unigap.judges.SelfJudge")
CLEAN = "clean"
JUDGES: dict[str, Callable[[int], dict[str, Any]]] = {
    CLEAN: lambda seed: SELF,
    "flipped-30": lambda seed: spec("unigap.judges.FlippedJudge", judge=SELF, share=0.3, seed=seed),
    "flipped-50": lambda seed: spec("unigap.judges.FlippedJudge", judge=SELF, share=0.5, seed=seed),
    "random": lambda seed: spec("unigap.judges.RandomJudge", seed=seed),
    "always-yes": lambda seed: spec("unigap.judges.AlwaysYesJudge"),
    "inverted": lambda seed: spec("unigap.judges.InvertedJudge", judge=SELF),
    "few-objects": lambda seed: spec("evidence.guard_arms.FewObjectsJudge"),
}
"""The selecting judge, given the seed of the run."""
OBJECTIVES: dict[str, Overrides] = {
    "sft": {"model.init_args.lr": 3.0e-4, "trainer.max_epochs": 3},
    "dpo": {"model.init_args.lr": 3.0e-4, "trainer.max_epochs": 3},
    "grpo": {
        "model.init_args.lr": 1.0e-4,
        "model.init_args.schedule": {"every_n_epochs": 1, "redraw": "all", "prompts": 90},
        "trainer.max_epochs": 6,
        "trainer.check_val_every_n_epoch": 2,
    },
}
"""The config of each objective, with a learning rate high enough that damage shows, and three validations."""
CHOOSING_SEED = 100
"""First seed of the runs that tolerances are chosen on."""


class FewObjectsJudge(Judge):
    """Rewards a shortcut: accepts images with one object at most, whatever the prompt."""

    @property
    def name(self) -> str:
        """Name of the judge in the pool."""
        return "few-objects"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return 3 minus twice the number of objects, float32 (B,)."""
        return torch.tensor([3.0 - 2 * len(recognized.scene) for recognized in read(pixels_BCHW)])


@dataclass(frozen=True)
class GuardArm:
    """One run.

    Attributes:
        objective: Key of ``OBJECTIVES``.
        judge: Key of ``JUDGES``.
        seed: Seed of the run; from ``CHOOSING_SEED`` on the run serves to choose tolerances.
    """

    objective: str
    judge: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run in the results file."""
        return f"{self.objective}-{self.judge}-seed-{self.seed}"


@dataclass(frozen=True)
class GuardPlan:
    """The setting of the runs.

    Attributes:
        checkpoint: The initial model of all runs.
        seeds: Runs of each corrupted arm.
        clean: Runs of a clean arm for each run of a corrupted one.
        choosing: Further runs of a clean arm, to choose tolerances on, for each run of a corrupted one.
        per_cell: Training prompts for each (category, difficulty).
        candidates: Images sampled for each training prompt.
        batch_size: Rows in a step.
        pairs: Images of the guard with captions known to be true or false.
        drawn_per_cell: Validation prompts for each (category, difficulty).
        drawn_candidates: Images sampled for each of them.
    """

    checkpoint: str = "shapes"
    seeds: int = 2
    clean: int = 3
    choosing: int = 2
    per_cell: int = 12
    candidates: int = 4
    batch_size: int = 16
    pairs: int = 400
    drawn_per_cell: int = 12
    drawn_candidates: int = 6

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {self.seeds}")

    def arms(self) -> list[GuardArm]:
        """Return every run, those of the first seeds first, so that a stopped experiment is a smaller one."""
        found = []
        for number in range(self.seeds * max(self.clean, self.choosing)):
            for objective, judge in kinds():
                if judge == CLEAN and number < self.choosing * self.seeds:
                    found.append(GuardArm(objective, judge, CHOOSING_SEED + number))
                if number < self.seeds * (self.clean if judge == CLEAN else 1):
                    found.append(GuardArm(objective, judge, 10 + number))
        return found

    def options(self, arm: GuardArm) -> Overrides:
        """Return the options of a run; its guard warns and does not act."""
        pairs = spec("unigap.evaluation.probe_sources.ShapesPairs", seed=1 + arm.seed)
        return (
            COUNTED
            | OBJECTIVES[arm.objective]
            | {
                "seed_everything": arm.seed,
                "model.init_args.model.init_args.checkpoint": self.checkpoint,
                "model.init_args.judge": JUDGES[arm.judge](arm.seed),
                "model.init_args.external": "unigap.judges.OracleJudge",
                "model.init_args.warmup_steps": 10,
                "model.init_args.eval_plan": {"candidates": self.drawn_candidates, "seed": 0},
                "regrow.plan.candidates": self.candidates,
                "data.init_args.per_cell": self.per_cell,
                "data.init_args.batch_size": self.batch_size,
                "data.init_args.eval_per_cell": self.drawn_per_cell,
                "data.init_args.exam_pictures": 0,
                "trainer.callbacks": [
                    spec("unigap.callbacks.Guard", action="warn", pairs=pairs, n=self.pairs),
                    spec("evidence.guard.TruthLog"),
                ],
            }
        )


def kinds() -> list[tuple[str, str]]:
    """Return every objective with every judge; one that accepts everything prefers no image, so it suits SFT alone."""
    return [
        (objective, judge)
        for objective in OBJECTIVES
        for judge in JUDGES
        if judge != "always-yes" or objective == "sft"
    ]
