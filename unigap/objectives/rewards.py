"""Rewards of candidates: a function of the selecting judge's verdict, and weighted sums of several judges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from unigap.judges.base import Judge
from unigap.loop.selection import threshold_logit
from unigap.records import Candidate

RewardOf = Literal["p_yes", "logit", "accepted"]
"""What of a judge's verdict is the reward: its probability of yes, its log-odds, or 1 for an accepted image, else 0."""
Standardise = Literal["none", "group", "batch"]


@dataclass(frozen=True)
class JudgeReward:
    """The part of a further judge in a reward.

    Args:
        judge: The judge; the pool stores its verdicts too.
        weight: Weight of its part in the sum, not 0.
        of: What of its verdict counts: ``p_yes``, ``logit`` or ``accepted``.
    """

    judge: Judge
    weight: float = 1.0
    of: RewardOf = "p_yes"

    def __post_init__(self) -> None:
        if not self.weight or not math.isfinite(self.weight):
            raise ValueError(f"the weight of a judge must be finite and not 0, got {self.weight}; leave the judge out")
        if self.judge.deferred:
            raise ValueError(f"a reward is needed at once, and {self.judge.name!r} answers later; take another judge")


@dataclass(frozen=True)
class Reward:
    """Reward of a candidate: the selecting judge's verdict, and those of further judges.

    Args:
        of: What of the selecting judge's verdict counts: ``p_yes``, ``logit`` or ``accepted``.
        weight: Weight of the selecting judge; 0 leaves it out of the reward.
        further: Further judges with their weights.
        standardise: Bring each judge's part to mean 0 and standard deviation 1 before the sum: within each ``group``,
            the candidates of one prompt and round, or over the ``batch``, all candidates learned from.
    """

    of: RewardOf = "p_yes"
    weight: float = 1.0
    further: Sequence[JudgeReward] = ()
    standardise: Standardise = "none"

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"the reward's weight must be finite, got {self.weight}")
        if not self.weight and not self.further:
            raise ValueError("a reward without a judge: its weight is 0; set the weight, or name further judges")

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The further judges."""
        return tuple(part.judge for part in self.further)

    @property
    def is_probability(self) -> bool:
        """Whether every reward is in [0, 1]."""
        return not self.further and self.weight == 1 and self.of != "logit" and self.standardise == "none"

    def recipe(self) -> dict[str, Any]:
        """Return names and weights, as the pool stores them."""
        further = [{"judge": part.judge.name, "of": part.of, "weight": part.weight} for part in self.further]
        return {"of": self.of, "weight": self.weight, "further": further, "standardise": self.standardise}

    def of_candidates(
        self,
        candidates: Sequence[Candidate],
        logits: Mapping[str, float],
        verdicts: Mapping[str, Mapping[str, float]],
        threshold: float,
    ) -> dict[str, float]:
        """Return the reward of each candidate that all judges judged, by id.

        Args:
            candidates: The candidates.
            logits: The selecting judge's log-odds of yes, by candidate id.
            verdicts: Those of the further judges, by name of the judge.
            threshold: Least probability of yes that accepts a candidate.
        """
        parts = [(logits, self.of, self.weight)]
        parts += [(verdicts.get(part.judge.name, {}), part.of, part.weight) for part in self.further]
        parts = [part for part in parts if part[2]]
        known = [candidate for candidate in candidates if all(candidate.id in part[0] for part in parts)]
        total = torch.zeros(len(known), dtype=torch.float64)
        groups = [members for members in self._groups(known) if members]
        for logit_of, of, weight in parts:
            logit_B = torch.tensor([logit_of[candidate.id] for candidate in known], dtype=torch.float64)
            value_B = _value(logit_B, of, threshold)
            for members in groups:
                value_B[members] = _standard(value_B[members])
            total += weight * value_B
        return dict(zip([candidate.id for candidate in known], total.tolist(), strict=True))

    def _groups(self, candidates: Sequence[Candidate]) -> list[list[int]]:
        """Return the places of the candidates that are standardised together."""
        if self.standardise == "none":
            return []
        if self.standardise == "batch":
            return [list(range(len(candidates)))]
        places: dict[tuple[str, int], list[int]] = {}
        for place, candidate in enumerate(candidates):
            places.setdefault((candidate.prompt.id, candidate.round), []).append(place)
        return list(places.values())


def grouped(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return the groups, the candidates of one prompt and round, in order."""
    groups: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.prompt.id, candidate.round), []).append(candidate)
    return list(groups.values())


def _value(logit_B: torch.Tensor, of: RewardOf, threshold: float) -> torch.Tensor:
    if of == "accepted":
        return (logit_B >= threshold_logit(threshold)).double()
    return logit_B.sigmoid() if of == "p_yes" else logit_B.clone()


def _standard(value_B: torch.Tensor) -> torch.Tensor:
    centred_B = value_B - value_B.mean()
    spread = centred_B.square().mean().sqrt()
    return centred_B / spread if spread > 1e-8 else torch.zeros_like(value_B)
