"""Ensemble of judges."""

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
    """Combines the log-odds of several judges.

    Args:
        judges: Two or more judges.
        rule: ``mean`` averages the log-odds, so a more confident judge weighs more; ``min`` accepts what all judges
            accept; ``majority`` takes the median, and with an even split the mean of the two middle log-odds.
    """

    def __init__(self, judges: Sequence[Judge], rule: Rule = "mean") -> None:
        if len(judges) < 2:
            raise ValueError(f"EnsembleJudge needs two judges or more, got {len(judges)}; use a single judge by itself")
        check_rule(rule)
        self.judges, self.rule = tuple(judges), rule

    @property
    def name(self) -> str:
        return f"{self.rule}-{'+'.join(judge.name for judge in self.judges)}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        logits = [judge.logits(model, candidates, pixels_BCHW).float() for judge in self.judges]
        logit_JB = torch.stack([logit_B.to(logits[0].device) for logit_B in logits])
        return combined(logit_JB, self.rule)


def check_rule(rule: str) -> None:
    """Check the name of a rule.

    Raises:
        ValueError: It is unknown.
    """
    if rule not in ("mean", "min", "majority"):
        raise ValueError(f"unknown rule {rule!r}; choose one of: mean, min, majority")


def combined(logit_JB: torch.Tensor, rule: Rule) -> torch.Tensor:
    """Return the log-odds (B,) that a rule makes of those of J judges, or of J questions to one."""
    if rule == "mean":
        return logit_JB.mean(0)
    return logit_JB.amin(0) if rule == "min" else _median(logit_JB)


def _median(logit_JB: torch.Tensor) -> torch.Tensor:
    sorted_JB, middle = logit_JB.sort(0).values, logit_JB.shape[0] // 2
    return sorted_JB[middle] if logit_JB.shape[0] % 2 else sorted_JB[middle - 1 : middle + 1].mean(0)
