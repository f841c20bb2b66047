"""Control judges, wrong on purpose: a claim about self-improvement needs runs with them for comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from unigap.judges.base import CERTAIN, Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate
from unigap.seeds import seed_of_part


class RandomJudge(Judge):
    """Accepts at random; the same candidate always gets the same verdict.

    Args:
        yes_rate: Expected share of accepted images, in (0, 1).
        seed: Seed of the verdicts; null follows the run's seed.
    """

    def __init__(self, yes_rate: float = 0.5, seed: int | None = None) -> None:
        if not 0 < yes_rate < 1:
            raise ValueError(f"yes_rate must be in (0, 1), got {yes_rate}")
        self.yes_rate, self.seed = yes_rate, seed_of_part("judge", seed)

    @property
    def name(self) -> str:
        return "random"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        # a logistic variate that is positive with probability yes_rate
        offset = torch.logit(torch.tensor(self.yes_rate, dtype=torch.float64))
        return (offset + torch.logit(_uniform(str(self.seed), candidates), eps=1e-9)).float()


class InvertedJudge(Judge):
    """Gives the opposite verdicts of another judge.

    Args:
        judge: The judge that is inverted.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @property
    def name(self) -> str:
        return f"inverted-{self.judge.name}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return -self.judge.logits(model, candidates, pixels_BCHW)


class AlwaysYesJudge(Judge):
    """Accepts everything, as a collapsed judge does: the model is trained on all its own samples."""

    @property
    def name(self) -> str:
        return "always-yes"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.full((len(candidates),), CERTAIN)


class FlippedJudge(Judge):
    """Another judge with a share of its verdicts flipped, always those of the same images.

    With a share of 0.5 the verdicts carry no information; a share of 1 is ``InvertedJudge``.

    Args:
        judge: The judge whose verdicts are flipped.
        share: Expected share of images whose log-odds change sign, in (0, 1).
        seed: Seed that chooses the images; null follows the run's seed.
    """

    def __init__(self, judge: Judge, share: float = 0.1, seed: int | None = None) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0, 1), got {share}; use the judge itself or InvertedJudge at the ends")
        self.judge, self.share, self.seed = judge, share, seed_of_part("judge", seed)

    @property
    def name(self) -> str:
        return f"flipped-{self.share:g}-{self.judge.name}"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        logit_B = self.judge.logits(model, candidates, pixels_BCHW)
        flip_B = _uniform(f"flip/{self.seed}", candidates).to(logit_B.device) < self.share
        return torch.where(flip_B, -logit_B, logit_B)


def _uniform(key: str, candidates: Sequence[Candidate]) -> torch.Tensor:
    """Return a uniform number in [0, 1) for each candidate, float64 (B,), from the key and the candidate's id alone."""
    digests = [hashlib.sha256(f"{key}/{candidate.id}".encode()).digest() for candidate in candidates]
    return torch.tensor([int.from_bytes(digest[:6]) / 2**48 for digest in digests], dtype=torch.float64)
