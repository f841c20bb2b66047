"""Rewards of candidates: a function of the selecting judge's verdict, and weighted sums of several judges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from unigap.judges.base import Judge
from unigap.loop.selection import threshold_logit
from unigap.loop.verdict_columns import VerdictColumns, verdict_columns

# Shape legend: N candidates, K rewarded ones, G groups of one prompt and round.

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

    def of_rounds(
        self,
        columns: VerdictColumns,
        first_round: Callable[[int], int],
        verdicts: Mapping[str, Mapping[str, float]],
        threshold: float,
    ) -> Rewarded:
        """Return the candidates that all judges judged, with their rewards.

        Args:
            columns: The candidates, with the selecting judge's log-odds of yes.
            first_round: Returns the first round to reward, given the newest.
            verdicts: Log-odds of yes of the further judges, by name of the judge and candidate id.
            threshold: Least probability of yes that accepts a candidate.
        """
        round_N = columns.round_N
        known_N = round_N >= first_round(int(round_N.max(initial=0)))
        parts = [(columns.logit_N, self.of, self.weight)] if self.weight else []
        for part in self.further:
            said = verdict_columns(columns.candidates, verdicts.get(part.judge.name, {}))
            parts.append((said.logit_N, part.of, part.weight))
        for logit_N, _, _ in parts:
            known_N &= ~np.isnan(logit_N)
        place_K = np.flatnonzero(known_N)
        found = Rewarded(columns, place_K, torch.zeros(len(place_K), dtype=torch.float64))
        together = self._together(found)
        for logit_N, of, weight in parts:
            value_K = _value(torch.from_numpy(logit_N[place_K]), of, threshold)
            for members in together:
                value_K[members] = _standard(value_K[members])
            found.reward_K.add_(weight * value_K)
        return found

    def _together(self, found: Rewarded) -> list[np.ndarray]:
        """Return the numbers of the candidates that are standardised together."""
        if self.standardise == "none" or not len(found.place_K):
            return []
        return [np.arange(len(found.place_K))] if self.standardise == "batch" else found.groups()


@dataclass(frozen=True)
class Rewarded:
    """Candidates and their rewards.

    Attributes:
        columns: All candidates.
        place_K: Places in ``columns`` of the rewarded ones.
        reward_K: Their rewards, float64.
    """

    columns: VerdictColumns
    place_K: np.ndarray
    reward_K: torch.Tensor

    def groups(self) -> list[np.ndarray]:
        """Return the candidates of each prompt and round, as numbers in ``place_K``, in the order of the candidates."""
        prompt_K, round_K = self.columns.group_N[self.place_K], self.columns.round_N[self.place_K]
        key_K = np.stack([round_K, prompt_K])
        _, first_G, group_K = np.unique(key_K, axis=1, return_index=True, return_inverse=True)
        order = np.argsort(group_K.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(group_K.ravel(), minlength=len(first_G)))
        groups = np.split(order, ends[:-1]) if len(ends) else []
        return [groups[number] for number in np.argsort(first_G)]


def _value(logit_B: torch.Tensor, of: RewardOf, threshold: float) -> torch.Tensor:
    if of == "accepted":
        return (logit_B >= threshold_logit(threshold)).double()
    return logit_B.sigmoid() if of == "p_yes" else logit_B.clone()


def _standard(value_B: torch.Tensor) -> torch.Tensor:
    centred_B = value_B - value_B.mean()
    spread = centred_B.square().mean().sqrt()
    return centred_B / spread if spread > 1e-8 else torch.zeros_like(value_B)
