"""Judges that are wrong on purpose: the controls no claim about self-improvement is made without."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from unigap.judges.base import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate


class RandomJudge(Judge):
    """Accepts at random, the same way for the same candidate.

    Args:
        yes_rate: Share of drawings it accepts, in (0, 1).
        seed: Names the coin.
    """

    def __init__(self, yes_rate: float = 0.5, seed: int = 0) -> None:
        if not 0 < yes_rate < 1:
            raise ValueError(f"yes_rate must be in (0, 1), got {yes_rate}")
        self.yes_rate, self.seed = yes_rate, seed

    @property
    def name(self) -> str:
        return "random"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        coins = [hashlib.sha256(f"{self.seed}/{candidate.id}".encode()).digest() for candidate in candidates]
        uniform = torch.tensor([int.from_bytes(coin[:6]) / 2**48 for coin in coins], dtype=torch.float64)
        # a logistic draw whose sign is positive with probability yes_rate
        offset = torch.logit(torch.tensor(self.yes_rate, dtype=torch.float64))
        return (offset + torch.logit(uniform, eps=1e-9)).float()


class InvertedJudge(Judge):
    """Says the opposite of another judge.

    Args:
        judge: The judge it contradicts.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @property
    def name(self) -> str:
        return f"inverted-{self.judge.name}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return -self.judge.logits(model, candidates, pixels_BCHW)
