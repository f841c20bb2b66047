"""Seeds of the parts of a run: derived from ``seed_everything`` by a table, unless an option sets them."""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLE = "PL_GLOBAL_SEED"
"""Environment variable in which Lightning's ``seed_everything`` stores the seed, also for the other processes."""


@dataclass(frozen=True)
class Part:
    """A part of a run that uses random numbers.

    Attributes:
        offset: Difference between its seed and the run's seed.
        option: The option that sets its seed; empty if there is none.
        decides: What the seed determines.
    """

    offset: int
    option: str
    decides: str


PARTS = {
    "pool": Part(0, "regrow.plan.seed", "candidates of the pool; which prompts a round draws for"),
    "predicted pool": Part(0, "model.init_args.predict_plan.seed", "candidates of `unigap predict`"),
    "order": Part(0, "data.init_args.seed", "order of the rows in an epoch"),
    "step": Part(0, "data.init_args.seed", "dropout, mask noise and extra questions of a training step"),
    "initialisation": Part(0, "", "LoRA adapters and untrained weights (torch's global generator)"),
    "evaluation": Part(20_000, "model.init_args.eval_plan.seed", "images sampled for validation prompts"),
    "probe set": Part(0, "data.init_args.exam_seed", "rendered images of validation"),
    "test": Part(1_000_000, "summary.plan.seed", "images sampled for test prompts, before and after"),
    "test probe set": Part(0, "summary.exam_seed", "rendered images of the test"),
    "rendered pairs": Part(1, "seed of ShapesPairs", "rendered images of known truth (Guard, Replay)"),
    "captioned pairs": Part(0, "seed of CaptionedFile, CaptionedDataset", "images of known truth from files"),
    "quiz": Part(0, "seed of ShapesQuiz", "rendered images of Retention"),
    "dynamics": Part(0, "seed of Dynamics", "which candidates Dynamics watches"),
    "judge": Part(0, "seed of RandomJudge, FlippedJudge", "random verdicts of a control judge"),
    "lessons": Part(0, "data.init_args.seed of ShapesLessons", "lessons and steps of pretraining"),
}
"""Every part by name; ``docs/seeds.md`` shows this table."""


def run_seed() -> int:
    """Return the seed that ``seed_everything`` set in this process; 0 where it was never called."""
    return int(os.environ.get(VARIABLE, 0))


def seed_of_part(part: str, given: int | None = None) -> int:
    """Return the seed of a part of the run.

    Args:
        part: A name in ``PARTS``.
        given: The seed that an option sets; ``None`` derives it from the run's seed.

    >>> seed_of_part("evaluation", 5)
    5
    """
    return run_seed() + PARTS[part].offset if given is None else given
