"""AUROC of weighted samples, for many weightings at once.

Shapes: S samples, R weightings, P positives. All arithmetic is float64 on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_auroc(score_S: Tensor, truth_S: Tensor, weight_RS: Tensor, stratum_S: Tensor | None = None) -> Tensor:
    """Return the AUROC of the same samples under each of several weightings; ties count one half.

    Args:
        score_S: Scores, float64, shape (S,).
        truth_S: True class, 0 or 1, float64, shape (S,).
        weight_RS: Weight of each sample in each weighting, >= 0, float64, shape (R, S).
        stratum_S: Id of each sample's stratum, shape (S,): only samples of one stratum are compared.

    Returns:
        AUROC, shape (R,); nan if no stratum has weight in both classes.
    """
    strata = [slice(None)] if stratum_S is None else [stratum_S == stratum for stratum in torch.unique(stratum_S)]
    parts = [_compared_pairs(score_S[keep], truth_S[keep], weight_RS[:, keep]) for keep in strata]
    won_R, pairs_R = (torch.stack(side).sum(0) for side in zip(*parts, strict=True))
    return won_R / pairs_R


def _compared_pairs(score_S: Tensor, truth_S: Tensor, weight_RS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight of the correctly ordered positive-negative pairs, and of all such pairs, shape (R,)."""
    order_S = score_S.argsort()
    score_S, truth_S, weight_RS = score_S[order_S], truth_S[order_S], weight_RS[:, order_S]
    negative_RS = weight_RS * (1 - truth_S)
    below_RS = torch.nn.functional.pad(negative_RS.cumsum(1), (1, 0))  # column i: negatives among the i lowest scores
    first_S, end_S = torch.searchsorted(score_S, score_S), torch.searchsorted(score_S, score_S, right=True)
    positive_S = truth_S.bool()
    positive_RP = weight_RS[:, positive_S]
    beaten_RP = (below_RS[:, first_S[positive_S]] + below_RS[:, end_S[positive_S]]) / 2
    return (positive_RP * beaten_RP).sum(1), positive_RP.sum(1) * negative_RS.sum(1)
