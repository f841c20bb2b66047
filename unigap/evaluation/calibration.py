"""Choose a judge's threshold on a probe set: the lowest at which enough of the accepted images are right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unigap.evaluation.gap import probe_logits
from unigap.evaluation.probe_sources import ProbeSource
from unigap.judges import SelfJudge
from unigap.metrics.intervals import Estimate
from unigap.metrics.scores import judge_precision, true_positive_rate
from unigap.models.base import UnifiedModel

# Shape legend: S judged images, V distinct logits.


def threshold_for_precision(logit_S: Tensor, truth_S: Tensor, precision: float) -> float:
    """Return the lowest threshold at which a judge has at least this precision; it accepts the most images there.

    Args:
        logit_S: Log-odds of yes, finite.
        truth_S: Whether yes is right, bool.
        precision: Least share of the accepted images that are right, in (0, 1].

    Returns:
        A probability in (0, 1): the midpoint, in log-odds, of the lowest accepted image and the next one below. If all
        images are accepted, half a unit of log-odds below the lowest.

    Raises:
        ValueError: No threshold gives this precision, or ``precision`` is out of range.

    >>> logit_S, truth_S = torch.tensor([3.0, 2.0, 1.0, -1.0]), torch.tensor([True, True, False, True])
    >>> round(threshold_for_precision(logit_S, truth_S, 0.75), 3)
    0.182
    >>> round(threshold_for_precision(logit_S, truth_S, 0.9), 3)
    0.818
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision must be in (0, 1], got {precision}; 0.9 accepts one wrong image in ten")
    values_V, value_S = torch.unique(logit_S.double(), return_inverse=True)
    accepted_V, right_V = (
        torch.zeros_like(values_V).index_add_(0, value_S, counted_S.double()).flip(0).cumsum(0).flip(0)
        for counted_S in (torch.ones_like(truth_S), truth_S)
    )
    precise_V = right_V / accepted_V >= precision
    if not precise_V.any():
        best = float((right_V / accepted_V).max())
        raise ValueError(f"at no threshold are {precision:.0%} of the accepted images right, at best {best:.0%}")
    lowest = int(precise_V.int().argmax())
    below_V = torch.cat([values_V[:1] - 1, values_V[:-1]])
    return float(((values_V[lowest] + below_V[lowest]) / 2).sigmoid())


@dataclass(frozen=True)
class Calibration:
    """A threshold, and the judge's precision and recall on images that did not choose it.

    Attributes:
        threshold: Least probability of yes that counts as accepted.
        precision: Share of the accepted images that are right.
        recall: Share of the right images that are accepted.
    """

    threshold: float
    precision: Estimate
    recall: Estimate


def calibrate(model: UnifiedModel, judge: SelfJudge, pairs: ProbeSource, n: int, precision: float) -> Calibration:
    """Choose a threshold on one half of ``n`` probe images and measure it on the other half.

    Half of the claims are true. If fewer of the images that the judge will see are right, its precision will be lower.

    Raises:
        ValueError: ``n`` is below 4, or as in ``threshold_for_precision``.
    """
    if n < 4:
        raise ValueError(f"n must be at least 4 pairs, got {n}; 600 give a threshold to rely on")
    probes = pairs.load(n)
    logit_S = probe_logits(model, probes, judge)
    # every second claim is true, so both halves hold as many true as false ones
    choosing_S = torch.arange(n) // 2 % 2 == 0
    threshold = threshold_for_precision(logit_S[choosing_S], probes.truth_B[choosing_S], precision)
    logit_S, truth_S, cluster_S = (column_S[~choosing_S] for column_S in (logit_S, probes.truth_B, probes.cluster_B))
    return Calibration(
        threshold,
        judge_precision(logit_S, truth_S, cluster_S, threshold),
        true_positive_rate(logit_S, truth_S, cluster_S, threshold),
    )
