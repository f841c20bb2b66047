"""Estimates with 95 % intervals from a bootstrap of whole clusters, because images of one prompt are correlated.

Shapes: S samples, C clusters (prompts), R resamples. All arithmetic is float64 on the CPU and repeatable from the seed.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigap.estimate import Estimate as Estimate
from unigap.metrics.weighted_auroc import weighted_auroc

CONFIDENCE = 0.95
_ELEMENTS_AT_ONCE = 2**22  # bounds the (R, S) work space of the AUROC to some 100 MB

Arm = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Resampled:
    """A statistic on the sample and on each resample of its clusters.

    Attributes:
        value: The statistic on the sample; nan if it is undefined.
        draws_R: The statistic on each resample, float64; nan for a resample without any sample that counts.
        n: Samples that count.
        clusters: Clusters that hold a sample that counts.
    """

    value: float
    draws_R: Tensor
    n: int
    clusters: int

    def minus(self, other: Resampled) -> Resampled:
        """Return the paired difference; both must come from the same resamples."""
        n, clusters = min(self.n, other.n), min(self.clusters, other.clusters)
        return Resampled(self.value - other.value, self.draws_R - other.draws_R, n, clusters)

    def over(self, other: Resampled) -> Resampled:
        """Return the paired ratio; nan if ``other`` is 0."""
        value = self.value / other.value if other.value else math.nan
        n, clusters = min(self.n, other.n), min(self.clusters, other.clusters)
        return Resampled(value, self.draws_R / other.draws_R, n, clusters)

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return the value with its percentile interval.

        Args:
            confidence: Share of the resamples inside the interval, in (0, 1).

        Raises:
            ValueError: If ``confidence`` is out of range.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence}; 0.95 is the plain choice")
        if self.n == 0 or math.isnan(self.value):
            return Estimate(math.nan, math.nan, math.nan, 0)
        if self.clusters < 2:  # one cluster shows no spread when it is resampled
            return Estimate(self.value, math.nan, math.nan, self.n)
        ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
        low, high = self.draws_R.nanquantile(ends).tolist()
        return Estimate(self.value, low, high, self.n)


def bootstrap_ratio(
    numerator_S: Tensor, denominator_S: Tensor, cluster_S: Tensor, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return the ratio of two sums, with a percentile interval from resampling clusters with replacement.

    Args:
        numerator_S: Summands of the numerator, finite, shape (S,).
        denominator_S: Summands of the denominator, finite and >= 0, shape (S,); 0 leaves a sample out.
        cluster_S: Integer id of the cluster each sample belongs to, shape (S,).
        resamples: Number of resamples, >= 1.
        seed: Seed of the resampling.

    Returns:
        The ratio; n counts the samples with a positive denominator. Nan with n = 0 when there are none.

    Raises:
        ValueError: If shapes differ, a value is not finite, or a denominator is negative.

    >>> print(bootstrap_ratio(torch.tensor([1, 0, 1, 1]), torch.ones(4), torch.tensor([0, 0, 1, 1])))
    0.750 [0.50, 1.00] n=4
    """
    return _bootstrap(_ratio, (numerator_S, denominator_S, cluster_S), resamples, seed)


def bootstrap_auroc(
    score_S: Tensor,
    truth_S: Tensor,
    cluster_S: Tensor,
    resamples: int = 1000,
    seed: int = 0,
    stratum_S: Tensor | None = None,
) -> Estimate:
    """Return the area under the ROC curve, with a percentile interval from resampling clusters with replacement.

    Args:
        score_S: Score that should be higher for positives, finite, shape (S,); ties count one half.
        truth_S: True class, bool or 0/1, shape (S,).
        cluster_S: Integer id of the cluster each sample belongs to, shape (S,).
        resamples: Number of resamples, >= 1.
        seed: Seed of the resampling.
        stratum_S: Integer id of each sample's stratum (e.g. its category), shape (S,): only samples of one stratum are
            compared, so that distinguishing the strata does not count. ``None`` compares all.

    Returns:
        The AUROC in [0, 1]; n counts all samples. Nan with n = 0 when no stratum holds both classes.

    Raises:
        ValueError: If shapes differ, a score is not finite, or the truth is neither bool nor 0/1.

    >>> score_S, truth_S = torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    >>> bootstrap_auroc(score_S, truth_S, torch.arange(4)).value
    0.875
    >>> bootstrap_auroc(score_S, truth_S, torch.arange(4), stratum_S=torch.tensor([0, 1, 1, 0])).value
    0.75
    """
    statistic = _auroc if stratum_S is None else functools.partial(_auroc, stratum_S=stratum_S)
    return _bootstrap(statistic, (score_S, truth_S, cluster_S), resamples, seed)


def paired_difference(
    before: Arm, after: Arm, resamples: int = 1000, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Return the ratio of sums after minus the ratio of sums before, on the same clusters.

    Each resample draws the same clusters in both arms, which cancels the variance between clusters. The arms may hold
    different samples, e.g. images of two models for the same prompts.

    Args:
        before: ``(numerator_S, denominator_S, cluster_S)`` as for `bootstrap_ratio`.
        after: The same, with its own number of samples.
        resamples: Number of resamples, >= 1.
        seed: Seed of the resampling.
        confidence: Share of the resamples inside the interval, in (0, 1).

    Returns:
        The difference; n is that of the smaller arm.

    Raises:
        ValueError: If the two arms do not hold the same clusters, or as for `bootstrap_ratio`.

    >>> prompt_S, ones_S = torch.arange(50), torch.ones(50)
    >>> print(paired_difference((0 * ones_S, ones_S, prompt_S), (ones_S, ones_S, prompt_S)))
    1.000 [1.00, 1.00] n=50
    """
    return _paired_bootstrap((_ratio, _ratio), before, after, resamples, seed, confidence)


def paired_auroc_difference(
    before: Arm,
    after: Arm,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    strata: tuple[Tensor, Tensor] | None = None,
) -> Estimate:
    """Return the AUROC after minus the AUROC before, on the same clusters; see `paired_difference`.

    Args:
        before: ``(score_S, truth_S, cluster_S)`` as for `bootstrap_auroc`.
        after: The same, with its own number of samples.
        resamples: Number of resamples, >= 1.
        seed: Seed of the resampling.
        confidence: Share of the resamples inside the interval, in (0, 1).
        strata: Stratum of each sample before and after, as for `bootstrap_auroc`; None compares all samples.

    Returns:
        The difference, in [-1, 1]; n is that of the smaller arm.

    Raises:
        ValueError: If the two arms do not hold the same clusters, or as for `bootstrap_auroc`.
    """
    by_arm = (_auroc, _auroc) if strata is None else tuple(functools.partial(_auroc, stratum_S=s) for s in strata)
    return _paired_bootstrap(by_arm, before, after, resamples, seed, confidence)


def wilson(hits: int, trials: int) -> Estimate:
    """Return the share of hits in independent trials with Wilson's 95 % interval, valid for few trials and at 0 and 1.

    Args:
        hits: Number of hits, in [0, trials].
        trials: Number of trials, >= 0; 0 gives nan.

    >>> print(wilson(0, 10))
    0.000 [0.00, 0.28] n=10
    """
    assert 0 <= hits <= trials
    if trials == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, shrink = hits / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / shrink
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / shrink
    return Estimate(share, max(0.0, middle - reach), min(1.0, middle + reach), trials)


def cluster_weights(clusters: int, resamples: int, seed: int) -> Tensor:
    """Draw how often each cluster occurs in each resample: multinomial counts.

    Args:
        clusters: Number C of clusters, >= 0.
        resamples: Number R of resamples, >= 1.
        seed: Seed of the draws.

    Returns:
        Counts, float64, shape (R, C); each row sums to C.

    Raises:
        ValueError: If ``resamples`` is below 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1, got {resamples}; 1000 is enough for a 95 % interval")
    generator = torch.Generator().manual_seed(seed)
    drawn_RC = torch.randint(max(clusters, 1), (resamples, clusters), generator=generator)
    drawn_RC += torch.arange(resamples)[:, None] * clusters
    return drawn_RC.flatten().bincount(minlength=resamples * clusters).view(resamples, clusters).double()


def check_columns(columns: Mapping[str, Tensor]) -> None:
    """Make sure that columns describe the same samples.

    Args:
        columns: Tensors by name, each of shape (S,) with one S for all.

    Raises:
        ValueError: If one is not one-dimensional, has another length than the first, or holds nan or infinity.
    """
    first = next(iter(columns))
    for name, column in columns.items():
        if column.ndim != 1:
            raise ValueError(f"{name} must have shape (samples,), got {tuple(column.shape)}; pass one value per sample")
        if len(column) != len(columns[first]):
            raise ValueError(
                f"{name} holds {len(column)} samples but {first} holds {len(columns[first])}; pass equal lengths"
            )
        if column.is_floating_point() and not column.isfinite().all():
            position = int((~column.isfinite()).nonzero()[0])
            raise ValueError(f"{name} holds {column[position].item()} at position {position}; pass finite numbers only")


def _bootstrap(statistic: Callable[..., Resampled], arm: Arm, resamples: int, seed: int) -> Estimate:
    return statistic(*arm, cluster_weights(torch.unique(arm[2]).numel(), resamples, seed)).estimate()


def _paired_bootstrap(
    by_arm: Sequence[Callable[..., Resampled]],
    before: Arm,
    after: Arm,
    resamples: int,
    seed: int,
    confidence: float,
) -> Estimate:
    clusters_C = torch.unique(before[2]).cpu()
    if not torch.equal(clusters_C, torch.unique(after[2]).cpu()):
        raise ValueError("before and after must hold the same clusters; evaluate both on the same prompts")
    weight_RC = cluster_weights(len(clusters_C), resamples, seed)
    first, last = (statistic(*arm, weight_RC) for statistic, arm in zip(by_arm, (before, after), strict=True))
    return last.minus(first).estimate(confidence)


def _ratio(numerator_S: Tensor, denominator_S: Tensor, cluster_S: Tensor, weight_RC: Tensor) -> Resampled:
    check_columns({"numerator_S": numerator_S, "denominator_S": denominator_S, "cluster_S": cluster_S})
    numerator_S, denominator_S = numerator_S.cpu().double(), denominator_S.cpu().double()
    if (denominator_S < 0).any():
        raise ValueError(f"denominator_S must be >= 0, got {denominator_S.min().item()}; 0 leaves a sample out")
    index_S = torch.unique(cluster_S.cpu(), return_inverse=True)[1]
    zeros_C = weight_RC.new_zeros(weight_RC.shape[1])
    numerator_C = zeros_C.index_add(0, index_S, numerator_S)
    denominator_C = zeros_C.index_add(0, index_S, denominator_S)
    value = numerator_C.sum() / denominator_C.sum()
    draws_R = (weight_RC @ numerator_C) / (weight_RC @ denominator_C)
    return Resampled(value.item(), draws_R, int((denominator_S > 0).sum()), int((denominator_C > 0).sum()))


def _auroc(
    score_S: Tensor, truth_S: Tensor, cluster_S: Tensor, weight_RC: Tensor, stratum_S: Tensor | None = None
) -> Resampled:
    check_columns({"score_S": score_S, "truth_S": truth_S, "cluster_S": cluster_S})
    if stratum_S is not None:
        check_columns({"score_S": score_S, "stratum_S": stratum_S})
        stratum_S = stratum_S.cpu()
    score_S, truth_S = score_S.cpu().double(), truth_S.cpu().double()
    if not torch.equal(truth_S, truth_S.bool().double()):
        raise ValueError("truth_S must be bool, or 0 and 1 only; compare the truth with the class you mean")
    index_S = torch.unique(cluster_S.cpu(), return_inverse=True)[1]
    value = weighted_auroc(score_S, truth_S, score_S.new_ones(1, len(score_S)), stratum_S)
    chunks = torch.split(weight_RC, max(1, _ELEMENTS_AT_ONCE // max(1, len(score_S))))
    draws_R = torch.cat([weighted_auroc(score_S, truth_S, chunk_RC[:, index_S], stratum_S) for chunk_RC in chunks])
    return Resampled(value.item(), draws_R, 0 if value.isnan() else len(score_S), weight_RC.shape[1])
