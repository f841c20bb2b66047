"""Judges that are wrong on purpose: the controls no claim about self-improvement is made without."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from unigap.judges.base import CERTAIN, Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate
from unigap.seeds import seed_of_part


class RandomJudge(Judge):
    """Accepts at random, the same way for the same candidate.

    Args:
        yes_rate: Share of drawings it accepts, in (0, 1).
        seed: Names the coin; null follows the run's seed.
    """

    def __init__(self, yes_rate: float = 0.5, seed: int | None = None) -> None:
        if not 0 < yes_rate < 1:
            raise ValueError(f"yes_rate must be in (0, 1), got {yes_rate}")
        self.yes_rate, self.seed = yes_rate, seed_of_part("judge", seed)

    @property
    def name(self) -> str:
        return "random"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        # a logistic draw whose sign is positive with probability yes_rate
        offset = torch.logit(torch.tensor(self.yes_rate, dtype=torch.float64))
        return (offset + torch.logit(_uniform(str(self.seed), candidates), eps=1e-9)).float()


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


class AlwaysYesJudge(Judge):
    """Accepts everything, as a judge does that has collapsed: the model is trained on what it draws anyway."""

    @property
    def name(self) -> str:
        return "always-yes"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.full((len(candidates),), CERTAIN)


class FlippedJudge(Judge):
    """Another judge whose verdict is turned round on a share of the drawings, the same ones each time.

    A share of 0.5 leaves verdicts that say nothing; 1 is ``InvertedJudge``.

    Args:
        judge: The judge that is disturbed.
        share: Share of drawings whose log-odds change sign, in (0, 1).
        seed: Names the coin; null follows the run's seed.
    """

    def __init__(self, judge: Judge, share: float = 0.1, seed: int | None = None) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0, 1), got {share}; use the judge itself or InvertedJudge at the ends")
        self.judge, self.share, self.seed = judge, share, seed_of_part("judge", seed)

    @property
    def name(self) -> str:
        return f"flipped-{self.share:g}-{self.judge.name}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        said_B = self.judge.logits(model, candidates, pixels_BCHW)
        flip_B = _uniform(f"flip/{self.seed}", candidates).to(said_B.device) < self.share
        return torch.where(flip_B, -said_B, said_B)


def _uniform(key: str, candidates: Sequence[Candidate]) -> torch.Tensor:
    """A draw from (0, 1) for each candidate, float64 (B,): a function of the key and the candidate's id alone."""
    coins = [hashlib.sha256(f"{key}/{candidate.id}".encode()).digest() for candidate in candidates]
    return torch.tensor([int.from_bytes(coin[:6]) / 2**48 for coin in coins], dtype=torch.float64)
