"""Statistics of the evidence pages: intervals over seeds, and rank correlation with whole prompts resampled.

Shape legend: S samples, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unigap.metrics.intervals import Estimate, cluster_weights

T_QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""97.5 % point of Student's t for the mean of so many values."""


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's 95 % interval; the interval is nan for one seed.

    >>> print(over_seeds([0.9, 1.0, 1.1]))
    1.000 [0.75, 1.25] n=3
    """
    if not values or not all(map(math.isfinite, values)):
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    reach = T_QUANTILE[min(len(values), max(T_QUANTILE))] * spread / math.sqrt(len(values))
    return Estimate(mean, mean - reach, mean + reach, len(values))


def ranks(values_S: Tensor) -> Tensor:
    """Ranks from 0, ties sharing their mean rank, float64 (S,)."""
    _, inverse_S, counts = torch.unique(values_S, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    shared: Tensor = (last - (counts.double() + 1) / 2)[inverse_S]
    return shared


def rank_correlation(x_S: Tensor, y_S: Tensor, cluster_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Spearman's correlation with a 95 % interval from resampling clusters; ranks are taken once.

    Args:
        x_S: Values, shape (S,).
        y_S: Values, shape (S,).
        cluster_S: Integer id of the cluster (prompt) of each sample.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The correlation in [-1, 1]; nan with n = 0 where a side does not vary or there are under three samples.

    >>> x = torch.arange(30.0)
    >>> rank_correlation(x, x**3, torch.arange(30)).value
    1.0
    """
    if len(x_S) < 3 or len(torch.unique(x_S)) < 2 or len(torch.unique(y_S)) < 2:
        return Estimate(math.nan, math.nan, math.nan, 0)
    x_S, y_S = ranks(x_S), ranks(y_S)
    clusters, index_S = torch.unique(cluster_S, return_inverse=True)
    value = float(_correlation(x_S, y_S, x_S.new_ones(1, len(x_S))))
    draws_R = _correlation(x_S, y_S, cluster_weights(len(clusters), resamples, seed)[:, index_S])
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = draws_R.nanquantile(ends).tolist()
    return Estimate(round(value, 12), low, high, len(x_S))


def _correlation(x_S: Tensor, y_S: Tensor, weight_RS: Tensor) -> Tensor:
    share_RS = weight_RS / weight_RS.sum(1, keepdim=True)
    x_RS, y_RS = x_S - (share_RS @ x_S)[:, None], y_S - (share_RS @ y_S)[:, None]
    scale_R = ((share_RS * x_RS**2).sum(1) * (share_RS * y_RS**2).sum(1)).sqrt()
    return (share_RS * x_RS * y_RS).sum(1) / scale_R
