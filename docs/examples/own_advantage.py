"""An objective of your own whose batch holds an advantage for each image, as in GRPO."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import ranked_by_prompt, threshold_logit
from unigap.models.base import UnifiedModel
from unigap.objectives import Objective, RowBatch, StepResult
from unigap.objectives.grpo import RewardedRow
from unigap.records import Candidate

# Shape legend: B images, M image tokens.


@dataclass(frozen=True)
class AdvantageBatch(RowBatch):
    """Image codes and the advantage of each image, float32; ``to`` moves both to the device."""

    advantage_B: torch.Tensor


class GroupAdvantage(Objective):
    """Raises the likelihood of images with a reward above the mean of their group and lowers that of the others.

    The advantage is that of GRPO (Shao et al. 2024), with the probability of yes as the reward: the distance from the
    group's mean in standard deviations. Groups in which all rewards are equal have no advantage and are left out.

    Args:
        threshold: Smallest probability of yes that accepts an image, in (0, 1); only discarded prompts depend on it.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        threshold_logit(threshold)
        self.threshold = threshold

    @property
    def needs_reference(self) -> bool:
        return False

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> list[RewardedRow]:
        rows = []
        for group in ranked_by_prompt(candidates, logits).values():
            rewards = torch.tensor([logit for logit, _ in group]).sigmoid().tolist()
            mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
            if deviation > 1e-4:
                for (_, candidate), reward in zip(group, rewards, strict=True):
                    rows.append(RewardedRow(candidate, (reward - mean) / deviation))
        return rows

    def members(self, row: RewardedRow) -> tuple[Candidate, ...]:
        return (row.candidate,)

    def collate(self, rows: Sequence[RewardedRow], references: Mapping[str, float]) -> AdvantageBatch:
        return AdvantageBatch(
            tuple(row.candidate.id for row in rows),
            tuple(row.prompt.text for row in rows),
            stack_drawings([row.candidate for row in rows]),
            torch.tensor([row.value for row in rows]),
        )

    def step(self, model: UnifiedModel, batch: AdvantageBatch) -> StepResult:
        logp_BM = model.image_logps(model.encode_prompt(batch.texts), batch.drawings_B)
        loss = -(batch.advantage_B * logp_BM.mean(-1)).mean()
        return StepResult(loss, {"advantage/spread": batch.advantage_B.std(correction=0)})
