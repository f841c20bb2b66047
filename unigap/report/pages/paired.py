"""Paired differences between two runs on the same prompts."""

from __future__ import annotations

import torch

from unigap.estimate import Estimate
from unigap.evaluation.gap import drawing_counts, judging_counts, paired_share
from unigap.metrics.intervals import paired_auroc_difference
from unigap.report.run_folder.measured import Samples

# Shape legend: S samples, E statements of the probe set.


def paired_difference(metric: str, first: Samples, other: Samples) -> Estimate | None:
    """Return the difference of another run from the first; each resample draws the same prompts for both.

    Args:
        metric: Name of the metric, as in ``summary.json``.
        first: Samples of the reference run.
        other: Samples of the other run, on the same prompts.

    Returns:
        Other minus first; None for a metric that the samples do not hold.
    """
    if metric == "understanding_renders":
        if not first.exam_own or first.exam_picture != other.exam_picture:
            return None
        picture_E = torch.tensor(first.exam_picture)
        right_E = torch.tensor(first.exam_right)
        first_E, other_E = (
            ((torch.tensor(samples.exam_own) >= 0) == right_E, torch.ones_like(right_E)) for samples in (first, other)
        )
        return paired_share(first_E, picture_E, other_E, picture_E)
    sides = [(_prompts(samples), _columns(samples)) for samples in (first, other)]
    if metric in ("judge_auroc", "judge_auroc_within"):
        arms = [
            (own_S, right_S.double(), prompt_S) for prompt_S, (_, _, own_S, right_S) in sides if right_S is not None
        ]
        if len(arms) < 2:
            return None
        before, after = arms
        strata = (torch.tensor(first.category), torch.tensor(other.category)) if metric.endswith("within") else None
        return paired_auroc_difference(before, after, strata=strata)
    counts = [
        drawing_counts(own_S >= 0, right_S) | judging_counts(fixed_own_S >= 0, fixed_right_S)
        for _, (own_S, right_S, fixed_own_S, fixed_right_S) in sides
    ]
    if any(metric not in found for found in counts):
        return None
    (first_S, _), (other_S, _) = sides
    return paired_share(counts[0][metric], first_S, counts[1][metric], other_S)


def _columns(samples: Samples) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
    own_S, fixed_own_S = (torch.tensor(side, dtype=torch.float64) for side in (samples.own, samples.fixed_own))
    right_S, fixed_right_S = (
        None if side is None else torch.tensor(side) for side in (samples.right, samples.fixed_right)
    )
    return own_S, right_S, fixed_own_S, fixed_right_S


def _prompts(samples: Samples) -> torch.Tensor:
    """Return the index of each sample's prompt, shape (S,)."""
    return torch.arange(len(samples.own)) // samples.candidates
