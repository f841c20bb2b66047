"""What the figures of a run were measured on, and what was said of each sample: without it no two runs compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MUST_AGREE = {
    "figures": "kind of figures",
    "prompts": "prompts",
    "split": "split",
    "per_cell": "prompts a cell",
    "prompts_sha256": "texts of the prompts",
    "candidates": "images a prompt",
    "sampling": "sampling",
    "judge": "judge",
    "external": "external judge",
    "exam": "exam pictures",
}
"""What two runs must have in common for their figures to be compared, in words.

Besides these, a run records the ``seed`` of its drawings (runs with different seeds are not paired) and ``weights``,
the digest of the trained weights."""
WHICH_PROMPTS = ("prompts", "split", "per_cell")
"""Keys that say which prompts, of which their texts are the proof."""
AFTER_TRAINING, IN_TRAINING = "after training", "validation in training"


@dataclass(frozen=True)
class Samples:
    """What was said of each sample after training, for differences that are paired.

    Attributes:
        candidates: Drawings of each prompt; drawings come prompt by prompt.
        category: Number of each drawing's category; empty where the prompts are of one category.
        own: Log-odds of yes of the trained model's own judge on its new drawings.
        right: External verdict on them; None where no external judge was asked.
        fixed_own: The same judge's log-odds on the drawings made before training.
        fixed_right: External verdict on those; None where no external judge was asked.
        exam_own: Its log-odds for the claims of the exam; empty without an exam.
        exam_right: Which claims are true.
        exam_picture: Number of each claim's picture.
    """

    candidates: int
    category: list[int]
    own: list[float]
    right: list[bool] | None
    fixed_own: list[float]
    fixed_right: list[bool] | None
    exam_own: list[float]
    exam_right: list[bool]
    exam_picture: list[int]

    def __post_init__(self) -> None:
        drawn = {len(self.own), len(self.fixed_own)}
        drawn |= {len(column) for column in (self.right, self.fixed_right) if column is not None}
        drawn |= {len(self.category)} if self.category else set()
        asked = {len(self.exam_own), len(self.exam_right), len(self.exam_picture)}
        if len(drawn) > 1 or len(asked) > 1 or self.candidates < 1 or len(self.own) % self.candidates:
            raise ValueError("the samples are not of one length; write the run again")


def check_alike(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Make sure that the figures of several runs were measured on the same things.

    Args:
        runs: Name of each run and what its figures were measured on, by the keys of `MUST_AGREE`; a key that a run
            lacks was not recorded.

    Returns:
        Lines that say what limits the comparison, e.g. a run that does not record what the others do.

    Raises:
        ValueError: Two runs differ in something that both record.
    """
    texts = [on.get("prompts_sha256") for _, on in runs]
    decided = WHICH_PROMPTS if texts[0] and len(set(texts)) == 1 else ()  # one set may lie under several names
    notices = []
    recorded = {key for _, on in runs for key in on if key in MUST_AGREE}
    for key, title in MUST_AGREE.items():
        known = [(name, on[key]) for name, on in runs if key in on and key not in decided]
        for name, value in known[1:]:
            if value != known[0][1]:
                raise ValueError(
                    f"{known[0][0]} and {name} were not measured alike: {title} {_said(known[0][1])} and "
                    f"{_said(value)}; measure both on the same, or compare runs that were"
                )
    seeds = {on.get("seed") for _, on in runs}
    if len(seeds) > 1:
        notices.append("the runs drew with different seeds, so differences between them are not paired")
    for name, on in runs:
        missing = [MUST_AGREE[key] for key in MUST_AGREE if key in recorded and key not in on]
        if missing:
            notices.append(f"{name} does not record what it was measured on ({', '.join(missing)})")
    return notices


def _said(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
