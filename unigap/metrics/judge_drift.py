"""Drift of a judge: its metrics now, their change since the start of a run, and the harmful changes.

On statements with known truth the judge itself may get worse. Generated images have no known truth, but while the
judge stays as good as it was, a lower acceptance rate than at the start means that the images have become worse.

Shapes: S statements, each judged at the start of a run and again later; D generated images for the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unigap.metrics.intervals import Estimate, paired_auroc_difference, paired_difference
from unigap.metrics.scores import auroc, brier_score, says_yes, squared_error, yes_rate


@dataclass(frozen=True)
class JudgeDrift:
    """A judge compared with itself at the start of the run.

    Attributes:
        now: ``auroc``, ``brier`` and ``yes_rate`` on the statements, ``accepted`` on the images, each in [0, 1].
        change: Now minus at the start, by the same names, with paired intervals.
        true_share: Share of the statements that are true.
        harms: Names of the metrics with a harmful change, see `harms`.
    """

    now: dict[str, float]
    change: dict[str, Estimate]
    true_share: float
    harms: tuple[str, ...]


def judge_drift(
    start_S: Tensor,
    now_S: Tensor,
    truth_S: Tensor,
    cluster_S: Tensor,
    confidence: float = 0.95,
    tolerance: float = 0.0,
    drawings: tuple[Tensor, Tensor, Tensor] | None = None,
) -> JudgeDrift:
    """Compare a judge with itself at the start of a run, on the same statements.

    Args:
        start_S: Log-odds of yes at the start, finite, shape (S,).
        now_S: Log-odds of yes now, finite, shape (S,).
        truth_S: Whether the statement is true, bool, shape (S,).
        cluster_S: Integer id of the prompt or image, which the bootstrap resamples, shape (S,).
        confidence: Share of resamples inside each interval, in (0, 1).
        tolerance: Change that is still ignored, in [0, 1).
        drawings: Log-odds of yes for the images at the start and for the images now, and the integer prompt id of each,
            all of shape (D,); ``None`` leaves ``accepted`` out.

    Raises:
        ValueError: Shapes differ, values are not finite, or ``confidence`` is out of range.

    >>> start_S, truth_S = torch.tensor([2.0, -2.0]).repeat(50), torch.tensor([True, False]).repeat(50)
    >>> judge_drift(start_S, start_S + 4, truth_S, torch.arange(100)).harms  # yes to everything
    ('brier', 'yes_rate')
    >>> judge_drift(start_S, -start_S, truth_S, torch.arange(100)).harms  # the opposite answers
    ('auroc', 'brier')
    """

    def paired(before_S: Tensor, after_S: Tensor, cluster_S: Tensor = cluster_S) -> Estimate:
        ones_S = torch.ones_like(before_S.double())
        arms = (before_S.double(), ones_S, cluster_S), (after_S.double(), ones_S, cluster_S)
        return paired_difference(*arms, confidence=confidence)

    change = {
        "auroc": paired_auroc_difference(
            (start_S, truth_S, cluster_S), (now_S, truth_S, cluster_S), confidence=confidence
        ),
        "brier": paired(squared_error(start_S, truth_S), squared_error(now_S, truth_S)),
        "yes_rate": paired(says_yes(start_S), says_yes(now_S)),
    }
    now = {
        "auroc": auroc(now_S, truth_S, cluster_S).value,
        "brier": brier_score(now_S, truth_S, cluster_S).value,
        "yes_rate": yes_rate(now_S, cluster_S).value,
    }
    if drawings:
        drawn_start_D, drawn_now_D, prompt_D = drawings
        change["accepted"] = paired(says_yes(drawn_start_D), says_yes(drawn_now_D), prompt_D)
        now["accepted"] = yes_rate(drawn_now_D, prompt_D).value
    true_share = truth_S.double().mean().item()
    return JudgeDrift(now, change, true_share, harms(now, change, true_share, tolerance))


def harms(
    now: Mapping[str, float], change: Mapping[str, Estimate], true_share: float, tolerance: float = 0.0
) -> tuple[str, ...]:
    """Return the names of the metrics whose whole interval of change lies beyond ``tolerance`` on the bad side.

    A lower AUROC and a higher Brier score (calibration) are worse. The yes-rate has no bad side; its change is harmful
    if it leads away from the share of true statements. A lower acceptance rate of generated images is harmful.

    Args:
        now: Metrics by name, each in [0, 1].
        change: Their changes since the start, with paired intervals.
        true_share: Share of true statements, in [0, 1].
        tolerance: Change that is still ignored, in [0, 1).
    """
    before = now["yes_rate"] - change["yes_rate"].value
    away = abs(now["yes_rate"] - true_share) > abs(before - true_share)
    bad = {
        "auroc": change["auroc"].high < -tolerance,
        "brier": change["brier"].low > tolerance,
        "yes_rate": away and (change["yes_rate"].low > tolerance or change["yes_rate"].high < -tolerance),
    }
    bad["accepted"] = "accepted" in change and change["accepted"].high < -tolerance
    return tuple(name for name, is_bad in bad.items() if is_bad)
