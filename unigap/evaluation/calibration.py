"""Where a judge's threshold belongs: the lowest at which enough of what it accepts is right, on known pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from unigap.evaluation.gap import sit_exam
from unigap.evaluation.known_pairs import KnownPairs
from unigap.judges import SelfJudge
from unigap.metrics.intervals import Estimate
from unigap.metrics.scores import judge_precision, true_positive_rate
from unigap.models.base import UnifiedModel

# Shape legend: S judged images.


def threshold_for_precision(logit_S: Tensor, truth_S: Tensor, precision: float) -> float:
    """The lowest threshold at which a judge is as precise as asked: it accepts as much as it can without being less so.

    Args:
        logit_S: Log-odds of yes, finite.
        truth_S: Whether yes is right, bool.
        precision: Least share of the accepted images that are right, in (0, 1].

    Returns:
        A probability in (0, 1), half way in log-odds between the last image that is accepted and the next; where all
        are accepted, half a unit below the last.

    Raises:
        ValueError: When the judge is not as precise at any threshold, or ``precision`` is out of range.

    >>> logit_S, truth_S = torch.tensor([3.0, 2.0, 1.0, -1.0]), torch.tensor([True, True, False, True])
    >>> round(threshold_for_precision(logit_S, truth_S, 0.75), 3)
    0.182
    >>> round(threshold_for_precision(logit_S, truth_S, 0.9), 3)
    0.818
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision must be in (0, 1], got {precision}; 0.9 accepts one wrong image in ten")
    values_V, place_S = torch.unique(logit_S.double(), return_inverse=True)
    accepted_V, right_V = (
        torch.zeros_like(values_V).index_add_(0, place_S, counted_S.double()).flip(0).cumsum(0).flip(0)
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
    """A threshold and how the judge does with it on other pairs than those it was chosen on.

    Attributes:
        threshold: Least probability of yes that counts as accepted.
        precision: Share of the accepted that are right.
        recall: Share of the right that are accepted.
    """

    threshold: float
    precision: Estimate
    recall: Estimate


def calibrate(model: UnifiedModel, judge: SelfJudge, pairs: KnownPairs, n: int, precision: float) -> Calibration:
    """Chooses a threshold on one half of ``n`` known pairs and examines it on the other.

    The pairs match as often as not. Where fewer of the images match that the judge will see, it will be less precise.

    Raises:
        ValueError: For fewer than 4 pairs, and as ``threshold_for_precision``.
    """
    if n < 4:
        raise ValueError(f"n must be at least 4 pairs, got {n}; 600 give a threshold to rely on")
    exam = pairs.load(n)
    with tqdm(total=n, unit="pair", desc="calibrate") as bar:
        logit_S = sit_exam(model, exam, judge, progress=bar.update)
    # every second pair matches: both halves get as many of each kind
    chosen_S = torch.arange(n) // 2 % 2 == 0
    threshold = threshold_for_precision(logit_S[chosen_S], exam.truth_B[chosen_S], precision)
    logit_S, truth_S, cluster_S = (column_S[~chosen_S] for column_S in (logit_S, exam.truth_B, exam.cluster_B))
    return Calibration(
        threshold,
        judge_precision(logit_S, truth_S, cluster_S, threshold),
        true_positive_rate(logit_S, truth_S, cluster_S, threshold),
    )
