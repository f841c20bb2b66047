"""Figures of a judge on statements with known truth, as one number for each cluster whose mean is the figure.

Shape legend: S statements, C clusters, P true and N false statements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unigap.metrics.scores import says_yes, squared_error
from unigap.metrics.watches import UnitValues


def judge_figures(logit_S: Tensor, truth_S: Tensor, cluster_S: Tensor) -> dict[str, UnitValues]:
    """Return ``auroc``, ``brier`` and ``yes_bias`` (share of yes minus share of true statements).

    Args:
        logit_S: Log-odds of yes, finite.
        truth_S: Whether the statement is true, bool; both must occur.
        cluster_S: Integer id of the prompt or image of each statement.

    >>> logit_S, truth_S = torch.tensor([2.0, -1.0, 1.0, -2.0]), torch.tensor([True, True, False, False])
    >>> {name: figure.mean for name, figure in judge_figures(logit_S, truth_S, torch.arange(4)).items()}["auroc"]
    0.75
    """
    return {
        "auroc": auroc_values(logit_S, truth_S, cluster_S),
        "brier": UnitValues.means(cluster_S, squared_error(logit_S, truth_S)),
        "yes_bias": UnitValues.means(cluster_S, says_yes(logit_S).double() - truth_S.double()),
    }


def auroc_values(logit_S: Tensor, truth_S: Tensor, cluster_S: Tensor) -> UnitValues:
    """Return pseudo-values of the AUROC: their mean is the AUROC, their variance over C that of clustered data.

    Source: N. A. Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997.
    """
    score_S, truth_S = logit_S.cpu().double(), truth_S.cpu().bool()
    above_PN = score_S[truth_S][:, None] - score_S[~truth_S][None]
    wins_PN = (above_PN.sign() + 1) / 2
    auroc = wins_PN.mean()
    part_S = torch.empty_like(score_S)
    part_S[truth_S] = (wins_PN.mean(1) - auroc) / len(wins_PN)
    part_S[~truth_S] = (wins_PN.mean(0) - auroc) / wins_PN.shape[1]
    cluster_C, place_S = torch.unique(cluster_S.cpu(), return_inverse=True)
    part_C = torch.zeros(len(cluster_C), dtype=torch.float64).index_add(0, place_S, part_S)
    return UnitValues(cluster_C, auroc + len(cluster_C) * part_C)
