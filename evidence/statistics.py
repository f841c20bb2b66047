"""Statistics of the evidence pages: intervals over seeds, and rank correlation with a cluster bootstrap.

Shape legend: S samples, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unigap.metrics.intervals import Estimate, Resampled, cluster_weights

T_QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""97.5 % quantile of Student's t by the number of values."""


def over_seeds(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Return the mean over seeds with Student's 95 % interval, clipped to the range of the figure; nan for one seed.

    Args:
        values: The value of each seed.
        least: Smallest possible value, e.g. -1 for a correlation.
        most: Largest possible value, e.g. 1 for R^2.

    >>> print(over_seeds([0.9, 1.0, 1.1]))
    1.000 [0.75, 1.25] n=3
    >>> print(over_seeds([0.9, 1.0, 1.1], most=1.1))
    1.000 [0.75, 1.10] n=3
    """
    if not values or not all(map(math.isfinite, values)):
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    reach = T_QUANTILE[min(len(values), max(T_QUANTILE))] * spread / math.sqrt(len(values))
    return Estimate(mean, max(least, mean - reach), min(most, mean + reach), len(values))


def ranks(values_S: Tensor) -> Tensor:
    """Return ranks from 0, float64 (S,); ties share their mean rank."""
    _, inverse_S, counts = torch.unique(values_S, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    shared: Tensor = (last - (counts.double() + 1) / 2)[inverse_S]
    return shared


def ranks_within(values_S: Tensor, stratum_S: Tensor) -> Tensor:
    """Return ranks within each stratum divided by its size, float64 (S,); ties share their mean rank."""
    ranked_S = torch.zeros(len(values_S), dtype=torch.float64)
    for stratum in torch.unique(stratum_S):
        keep_S = stratum_S == stratum
        ranked_S[keep_S] = ranks(values_S[keep_S]) / keep_S.sum()
    return ranked_S


def rank_correlation(
    x_S: Tensor,
    y_S: Tensor,
    cluster_S: Tensor,
    resamples: int = 1000,
    seed: int = 0,
    stratum_S: Tensor | None = None,
) -> Estimate:
    """Return Spearman's correlation with a 95 % cluster bootstrap interval; ranks are computed once, before resampling.

    Args:
        x_S: Values, shape (S,).
        y_S: Values, shape (S,).
        cluster_S: Integer id of the cluster (prompt) of each sample.
        resamples: Number of resamples.
        seed: Seed of the resampling.
        stratum_S: Integer id of each sample's stratum (category). Samples are ranked within their stratum and centred
            on its mean, so differences between strata have no effect. ``None`` is a single stratum.

    Returns:
        The correlation in [-1, 1]; nan with n = 0 if a side is constant or there are fewer than three samples.

    >>> x = torch.arange(30.0)
    >>> rank_correlation(x, x**3, torch.arange(30)).value
    1.0
    >>> stratum = torch.arange(30) // 10
    >>> rank_correlation(x, 100 * stratum - x, torch.arange(30)).value > 0.7  # between the strata alone
    True
    >>> rank_correlation(x, 100 * stratum - x, torch.arange(30), stratum_S=stratum).value
    -1.0
    """
    if stratum_S is None:
        stratum_S = torch.zeros(len(x_S), dtype=torch.long)
        x_S, y_S = ranks(x_S), ranks(y_S)
    else:
        stratum_S = torch.unique(stratum_S, return_inverse=True)[1]
        x_S, y_S = ranks_within(x_S, stratum_S), ranks_within(y_S, stratum_S)
    clusters, index_S = torch.unique(cluster_S, return_inverse=True)
    value = float("nan")
    if len(x_S) >= 3:
        value = round(_correlation(x_S, y_S, x_S.new_ones(1, len(x_S)), stratum_S).item(), 12)
    weight_RS = cluster_weights(len(clusters), resamples, seed)[:, index_S]
    return Resampled(value, _correlation(x_S, y_S, weight_RS, stratum_S), len(x_S), len(clusters)).estimate()


def _correlation(x_S: Tensor, y_S: Tensor, weight_RS: Tensor, stratum_S: Tensor) -> Tensor:
    member_SG = torch.nn.functional.one_hot(stratum_S).double()
    total_RG = (weight_RS @ member_SG).clamp_min(1.0)  # a stratum that a resample misses has weight 0

    def centred(values_S: Tensor) -> Tensor:
        mean_RG = ((weight_RS * values_S) @ member_SG) / total_RG
        return values_S - mean_RG[:, stratum_S]

    x_RS, y_RS = centred(x_S), centred(y_S)
    scale_R = ((weight_RS * x_RS**2).sum(1) * (weight_RS * y_RS**2).sum(1)).sqrt()
    return torch.where(scale_R > 1e-9, (weight_RS * x_RS * y_RS).sum(1) / scale_R, torch.nan)
