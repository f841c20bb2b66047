"""Several judges as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from unigap.judges.base import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate

# Shape legend: B images, J judges.

Rule = Literal["mean", "min", "majority"]


class EnsembleJudge(Judge):
    """Says what several judges say together.

    Args:
        judges: Two or more.
        rule: ``mean`` averages the log-odds, so a judge that is surer counts more, and one that is never in doubt
            counts most; ``min`` accepts what all accept; ``majority`` is the median, so that as many yes as no are
            decided by the firmer of the two judges in the middle.
    """

    def __init__(self, judges: Sequence[Judge], rule: Rule = "mean") -> None:
        if len(judges) < 2:
            raise ValueError(f"EnsembleJudge needs two judges or more, got {len(judges)}; use a single judge by itself")
        if rule not in ("mean", "min", "majority"):
            raise ValueError(f"unknown rule {rule!r}; choose one of: mean, min, majority")
        self.judges, self.rule = tuple(judges), rule

    @property
    def name(self) -> str:
        return f"{self.rule}-{'+'.join(judge.name for judge in self.judges)}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        said = [judge.logits(model, candidates, pixels_BCHW).float() for judge in self.judges]
        said_JB = torch.stack([said_B.to(said[0].device) for said_B in said])
        if self.rule == "mean":
            return said_JB.mean(0)
        return said_JB.amin(0) if self.rule == "min" else _median(said_JB)


def _median(said_JB: torch.Tensor) -> torch.Tensor:
    sorted_JB, middle = said_JB.sort(0).values, said_JB.shape[0] // 2
    return sorted_JB[middle] if said_JB.shape[0] % 2 else sorted_JB[middle - 1 : middle + 1].mean(0)
