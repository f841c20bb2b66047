"""What became of a judge: its readings now, their change since the start of a run, and which changes are harm.

On pairs whose truth is known it may get worse. On what the model draws there is no truth, but as long as the judge is
as good as it was, drawings it accepts less often than those of the start have got worse.

Shapes: S claims, each judged at the start of a run and again later; D drawings for the same prompts, then and now.
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
    """A judge against itself at the start of the run.

    Attributes:
        now: ``auroc``, ``brier`` and ``yes_rate`` on the claims, ``accepted`` of the drawings, each in [0, 1].
        change: Now minus at the start by the same names, with the paired interval.
        true_share: Share of the claims that are true.
        harms: Names of the readings whose change is harm, as ``harms`` finds them.
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
    """Compare a judge with itself at the start of a run, on the same claims.

    Args:
        start_S: Log-odds of yes at the start, finite, shape (S,).
        now_S: Log-odds of yes now, finite, shape (S,).
        truth_S: Whether the claim is true, bool, shape (S,).
        cluster_S: Integer id of the prompt or image, by which the bootstrap resamples, shape (S,).
        confidence: Share of resamples inside each interval, in (0, 1).
        tolerance: How far a reading may move before it counts, in [0, 1).
        drawings: Log-odds of yes for what was drawn at the start, for what is drawn now, and the integer id of the
            prompt of each, every one of shape (D,); ``None`` leaves ``accepted`` out.

    Raises:
        ValueError: If shapes differ, values are not finite, or ``confidence`` is out of range.

    >>> start_S, truth_S = torch.tensor([2.0, -2.0]).repeat(50), torch.tensor([True, False]).repeat(50)
    >>> judge_drift(start_S, start_S + 4, truth_S, torch.arange(100)).harms  # it says yes to everything
    ('brier', 'yes_rate')
    >>> judge_drift(start_S, -start_S, truth_S, torch.arange(100)).harms  # it says the opposite, as often
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
    """Names of the readings whose whole interval of change lies beyond ``tolerance`` on the bad side.

    The AUROC is worse below, the Brier score (calibration) above. The yes-rate has no bad side; its change is harm
    where it leads away from the share of claims that are true. Fewer drawings accepted than at the start is harm.

    Args:
        now: Readings by name, each in [0, 1].
        change: Their changes since the start, with paired intervals.
        true_share: Share of claims that are true, in [0, 1].
        tolerance: How far a reading may move before it counts, in [0, 1).
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
