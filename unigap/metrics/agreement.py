"""Agreement of judges: raw agreement, and the kappas that correct it for chance, with intervals.

Shapes: S samples, J judges, each judging all samples; C clusters, R resamples. Verdicts are bool. ``cluster_S``
is the integer id of the prompt; the bootstrap draws ``resamples`` resamples of whole prompts from ``seed``. A kappa is
1 if all judges agree, 0 if they agree as often as by chance, and nan with n = 0 if all verdicts are equal, so that
chance explains everything. All functions raise ValueError for unequal shapes and verdicts that are not bool.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unigap.metrics.intervals import Estimate, Resampled, check_columns, cluster_weights
from unigap.metrics.scores import share


def raw_agreement(verdict_SJ: Tensor, cluster_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the share of pairs of judges that agree, over all samples, in [0, 1].

    >>> verdict_SJ = torch.tensor([[True, True], [True, False], [False, False], [False, False]])
    >>> print(raw_agreement(verdict_SJ, torch.arange(4)))
    0.750 [0.25, 1.00] n=4
    """
    agree_S = _pairs_that_agree(*_yes(verdict_SJ, cluster_S))
    if torch.unique(agree_S).tolist() in ([0.0], [1.0]):  # resampling would claim certainty
        return share(agree_S.bool(), torch.ones_like(agree_S).bool(), cluster_S, resamples, seed)
    columns_SK = torch.stack([agree_S, torch.ones_like(agree_S)], 1)
    return _bootstrap(lambda total_RK: total_RK[:, 0] / total_RK[:, 1], columns_SK, cluster_S, resamples, seed)


def cohen_kappa(first_S: Tensor, second_S: Tensor, cluster_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the agreement of two judges beyond chance, given the yes-rate of each, in [-1, 1].

    >>> first_S, second_S = torch.tensor([True, True, False, False]), torch.tensor([True, False, False, False])
    >>> cohen_kappa(first_S, second_S, torch.arange(4)).value
    0.5
    """
    check_columns({"first_S": first_S, "second_S": second_S, "cluster_S": cluster_S})
    yes_S, judges = _yes(torch.stack([first_S, second_S], 1), cluster_S)
    agree_S = _pairs_that_agree(yes_S, judges)

    def kappa(total_RK: Tensor) -> Tensor:
        agree_R, first_R, second_R = (total_RK[:, :3] / total_RK[:, 3:]).T
        return _beyond_chance(agree_R, first_R * second_R + (1 - first_R) * (1 - second_R))

    columns_SK = torch.stack([agree_S, first_S.double(), second_S.double(), torch.ones_like(yes_S)], 1)
    return _bootstrap(kappa, columns_SK, cluster_S, resamples, seed)


def fleiss_kappa(verdict_SJ: Tensor, cluster_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the agreement of several judges beyond chance, given their common yes-rate, in [-1, 1].

    >>> verdict_SJ = torch.tensor([[True, True, True], [False, False, False]])
    >>> fleiss_kappa(verdict_SJ, torch.arange(2)).value
    1.0
    """
    yes_S, judges = _yes(verdict_SJ, cluster_S)

    def kappa(total_RK: Tensor) -> Tensor:
        agree_R, yes_R = (total_RK[:, :2] / total_RK[:, 2:]).T
        return _beyond_chance(agree_R, yes_R**2 + (1 - yes_R) ** 2)

    columns_SK = torch.stack([_pairs_that_agree(yes_S, judges), yes_S / judges, torch.ones_like(yes_S)], 1)
    return _bootstrap(kappa, columns_SK, cluster_S, resamples, seed)


def _yes(verdict_SJ: Tensor, cluster_S: Tensor) -> tuple[Tensor, int]:
    """Return the number of yes for each sample, float64, shape (S,), and the number of judges."""
    if verdict_SJ.ndim != 2 or verdict_SJ.shape[1] < 2:
        raise ValueError(f"verdicts must have shape (samples, judges >= 2), got {tuple(verdict_SJ.shape)}")
    if verdict_SJ.dtype != torch.bool:
        raise ValueError(f"verdicts must be bool, got {verdict_SJ.dtype}; call .bool() on them")
    check_columns({"verdict_SJ": verdict_SJ[:, 0], "cluster_S": cluster_S})
    return verdict_SJ.cpu().double().sum(1), verdict_SJ.shape[1]


def _pairs_that_agree(yes_S: Tensor, judges: int) -> Tensor:
    """Return the share of the pairs of judges that agree on each sample, shape (S,)."""
    no_S = judges - yes_S
    return (yes_S * (yes_S - 1) + no_S * (no_S - 1)) / (judges * (judges - 1))


def _beyond_chance(agree_R: Tensor, chance_R: Tensor) -> Tensor:
    return torch.where(chance_R < 1, (agree_R - chance_R) / (1 - chance_R), torch.nan)


def _bootstrap(
    statistic: Callable[[Tensor], Tensor], columns_SK: Tensor, cluster_S: Tensor, resamples: int, seed: int
) -> Estimate:
    """Return a function of column totals, with a percentile interval from resampling clusters with replacement."""
    clusters_C, index_S = torch.unique(cluster_S.cpu(), return_inverse=True)
    total_CK = columns_SK.new_zeros(len(clusters_C), columns_SK.shape[1]).index_add(0, index_S, columns_SK)
    value = statistic(total_CK.sum(0, keepdim=True)).item()
    draws_R = statistic(cluster_weights(len(clusters_C), resamples, seed) @ total_CK)
    return Resampled(value, draws_R, len(columns_SK), len(clusters_C)).estimate()
