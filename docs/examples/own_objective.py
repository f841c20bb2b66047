"""An objective of your own: a preference loss without a reference model, as in SimPO."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import preference_pairs, threshold_logit
from unigap.models.base import UnifiedModel
from unigap.objectives import Objective, RowBatch, StepResult
from unigap.records import Candidate, Pair

# Shape legend: B pairs, M image tokens.


@dataclass(frozen=True)
class Pairs(RowBatch):
    """Drawings of accepted images, ``drawings_B``, and of rejected ones, ``rejected_B``."""

    rejected_B: torch.Tensor


class MarginPreference(Objective):
    """Raises the likelihood of the accepted image above that of the rejected one by a margin (Meng et al. 2024).

    The loss of a pair is -log sigmoid(beta (chosen - rejected) - margin), where chosen and rejected are the mean
    log-likelihoods per image token.

    Args:
        threshold: Smallest probability of yes that accepts an image, in (0, 1).
        beta: Steepness, > 0.
        margin: Target for beta (chosen - rejected), >= 0.
    """

    def __init__(self, threshold: float = 0.5, beta: float = 2.0, margin: float = 0.5) -> None:
        threshold_logit(threshold)
        if not 0 < beta < math.inf or not 0 <= margin < math.inf:
            raise ValueError(f"beta must be > 0 and margin >= 0, got {beta} and {margin}; 2 and 0.5 are a start")
        self.threshold, self.beta, self.margin = threshold, beta, margin

    @property
    def needs_reference(self) -> bool:
        return False

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> list[Pair]:
        return preference_pairs(candidates, logits, self.threshold)

    def members(self, row: Pair) -> tuple[Candidate, ...]:
        return (row.chosen, row.rejected)

    def collate(self, rows: Sequence[Pair], references: Mapping[str, float]) -> Pairs:
        names = tuple(f"{row.chosen.id}>{row.rejected.id}" for row in rows)
        texts = tuple(row.prompt.text for row in rows)
        return Pairs(
            names, texts, stack_drawings([row.chosen for row in rows]), stack_drawings([row.rejected for row in rows])
        )

    def step(self, model: UnifiedModel, batch: Pairs) -> StepResult:
        prompt = model.encode_prompt(batch.texts)
        chosen_B = model.image_logps(prompt, batch.drawings_B).mean(-1)
        rejected_B = model.image_logps(prompt, batch.rejected_B).mean(-1)
        difference_B = chosen_B - rejected_B
        loss = -F.logsigmoid(self.beta * difference_B - self.margin).mean()
        return StepResult(loss, {"preference/difference": difference_B.detach().mean()})
