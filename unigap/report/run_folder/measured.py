"""What the figures of a run were measured on, and the verdicts on each sample, for comparisons of runs."""

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
"""Properties that two runs must share for a comparison of their figures, with their names in messages.

A run also records its sampling ``seed`` (runs with different seeds are not paired) and ``weights``, the digest of the
trained weights."""
WHICH_PROMPTS = ("prompts", "split", "per_cell")
"""Keys that name the prompts; the digest of their texts decides."""
AFTER_TRAINING, IN_TRAINING = "after training", "validation in training"


@dataclass(frozen=True)
class Samples:
    """Verdicts on each sample after training, for paired differences.

    Attributes:
        candidates: Number of images for each prompt; images are ordered by prompt.
        category: Index of each image's category; empty if all prompts have one category.
        own: Log-odds of yes of the trained model's own judge on its new images.
        right: External verdict on them; None without an external judge.
        fixed_own: The same judge's log-odds on the images generated before training.
        fixed_right: External verdict on those; None without an external judge.
        exam_own: Its log-odds for the statements of the probe set; empty without a probe set.
        exam_right: Whether each statement is true.
        exam_picture: Index of each statement's image.
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
        verdicts = [column for column in (self.right, self.fixed_right) if column is not None]
        drawn |= {len(column) for column in verdicts}
        drawn |= {len(self.category)} if self.category else set()
        asked = {len(self.exam_own), len(self.exam_right), len(self.exam_picture)}
        if len(drawn) > 1 or len(asked) > 1 or self.candidates < 1 or len(self.own) % self.candidates:
            raise ValueError("the samples are not of one length; write the run again")


def check_alike(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Make sure that the figures of several runs were measured on the same things.

    Args:
        runs: Name of each run and what its figures were measured on, by the keys of `MUST_AGREE`; an absent key was not
            recorded.

    Returns:
        Lines about limits of the comparison, e.g. a run that does not record what the others record.

    Raises:
        ValueError: Two runs differ in something that both record.
    """
    texts = [on.get("prompts_sha256") for _, on in runs]
    decided = WHICH_PROMPTS if texts[0] and len(set(texts)) == 1 else ()  # one prompt set may have several names
    notices = []
    recorded = {key for _, on in runs for key in on if key in MUST_AGREE}
    for key, title in MUST_AGREE.items():
        known = [(name, on[key]) for name, on in runs if key in on and key not in decided]
        for name, value in known[1:]:
            if value != known[0][1]:
                raise ValueError(
                    f"{known[0][0]} and {name} were not measured alike: {title} {_shown(known[0][1])} and "
                    f"{_shown(value)}; measure both on the same, or compare runs that were"
                )
    seeds = {on.get("seed") for _, on in runs}
    if len(seeds) > 1:
        notices.append("the runs drew with different seeds, so differences between them are not paired")
    for name, on in runs:
        missing = [MUST_AGREE[key] for key in MUST_AGREE if key in recorded and key not in on]
        if missing:
            notices.append(f"{name} does not record what it was measured on ({', '.join(missing)})")
    return notices


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
