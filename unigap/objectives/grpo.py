"""GRPO: raise the likelihood of images that are better than the others of their group, and lower that of the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import threshold_logit
from unigap.loop.verdict_columns import joined_rows, verdict_columns
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine.autoregressive import scored_recipe
from unigap.objectives.base import Objective, RowBatch, StepResult, reference_logps
from unigap.objectives.policy_losses import Baseline, RatioOf, advantages, k3, policy_loss
from unigap.objectives.rewards import Reward, Rewarded
from unigap.records import Candidate, Prompt

# Shape legend: B images, M image tokens, K rewarded images, N images of a group.

EVEN = 1e-8
"""Standard deviation of rewards up to which a group has no spread."""


@dataclass(frozen=True)
class RewardedRow:
    """A candidate and its advantage, or its reward."""

    candidate: Candidate
    value: float

    @property
    def prompt(self) -> Prompt:
        """The prompt of the candidate."""
        return self.candidate.prompt


@dataclass(frozen=True)
class RewardedBatch(RowBatch):
    """Images with their advantages or rewards.

    Attributes:
        value_B: Advantage or reward of each image, float32.
        behaviour_BM: Log-probability of each token under the policy that sampled it, float32, in nats; ``None`` if the
            objective does not need it.
    """

    value_B: torch.Tensor
    behaviour_BM: torch.Tensor | None


class GRPO(Objective):
    """Group relative policy optimisation on the model's own verdicts, with the ratio of the policy that acted.

    Ratio and divergence are those of the distribution that images are sampled from, with guidance, temperature and
    filters. GSPO is ``ratio_of: sequence`` with clips of 3e-4 and 4e-4; RLOO is ``ratio_of: image``, ``baseline:
    leave_one_out`` and ``scale_by_std: false``; Dr. GRPO is ``scale_by_std: false``.

    Args:
        threshold: Smallest probability of yes that accepts an image, in (0, 1).
        reward: Function of the verdicts; null is the selecting judge's probability of yes.
        clip_low: How far below 1 a ratio still gives a gradient, in (0, 1].
        clip_high: How far above 1 a ratio still gives a gradient, > 0; DAPO takes 0.28.
        kl: Weight of the divergence from the model as the stage starts it, per token, >= 0; 0 leaves it out, and the
            reference model with it.
        ratio_of: ``token`` (GRPO), ``sequence`` (GSPO) or ``image`` (RLOO).
        baseline: ``group`` subtracts the mean reward of a group, ``leave_one_out`` that of the others in it.
        scale_by_std: Divide advantages by the standard deviation of the group.
        reuse: Learn from the newest so many rounds; 1 is on-policy, 0 takes all rounds.
    """

    needs_behaviour = True
    needs_stored_references = False

    def __init__(
        self,
        threshold: float = 0.5,
        reward: Reward | None = None,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        kl: float = 0.01,
        ratio_of: RatioOf = "token",
        baseline: Baseline = "group",
        scale_by_std: bool = True,
        reuse: int = 1,
    ) -> None:
        threshold_logit(threshold)
        if not 0 < clip_low <= 1 or not 0 < clip_high < math.inf:
            raise ValueError(
                f"clip_low must be in (0, 1] and clip_high > 0, got {clip_low} and {clip_high}; 0.2 is usual"
            )
        if not 0 <= kl < math.inf:
            raise ValueError(f"kl must be >= 0 and finite, got {kl}; 0 leaves the divergence out")
        if reuse < 0:
            raise ValueError(f"reuse must be >= 0, got {reuse}; 1 learns from the newest round, 0 from all")
        self.threshold, self.reward = threshold, reward or Reward()
        self.clip_low, self.clip_high, self.kl, self.ratio_of = clip_low, clip_high, kl, ratio_of
        self.baseline, self.scale_by_std, self.reuse = baseline, scale_by_std, reuse
        self.judges = self.reward.judges
        self.recipe = SamplingRecipe()
        self._verdicts: Mapping[str, Mapping[str, float]] = {}

    @property
    def needs_reference(self) -> bool:
        return self.kl > 0

    def prepare(self, model: UnifiedModel, plan: RoundPlan) -> None:
        if plan.candidates < 2:
            raise ValueError(
                f"GRPO compares the candidates of a prompt and needs 2 or more, got {plan.candidates}; raise "
                "regrow.plan.candidates"
            )
        if not model.exact_likelihood:
            raise ValueError(
                f"GRPO needs the exact likelihood under the sampling recipe (cfg {plan.sampling.cfg:g}), which "
                f"{type(model).__name__} only estimates; take SFT, DPO or NFT"
            )
        self.recipe = scored_recipe(plan.sampling)

    def first_round(self, newest: int) -> int:
        return max(0, newest + 1 - self.reuse) if self.reuse else 0

    def learning_recipe(self) -> dict[str, Any]:
        return {"behaviour": "per token", "reward": self.reward.recipe()}

    def use_verdicts(self, verdicts: Mapping[str, Mapping[str, float]]) -> None:
        self._verdicts = verdicts

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[RewardedRow]:
        known = self._rewarded(candidates, logits)
        taught = [group_N for group_N in known.groups() if not _is_even(known.reward_K[group_N])]
        values = [advantages(known.reward_K[group_N], self.baseline, self.scale_by_std) for group_N in taught]
        return rewarded_rows(known, taught, values)

    def count_rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> dict[str, int]:
        known = self._rewarded(candidates, logits)
        even = [_is_even(known.reward_K[group_N]) for group_N in known.groups()]
        return {"groups": len(even), "even_groups": sum(even)}

    def nothing_to_learn(self, logits: Mapping[str, float]) -> str:
        if not logits:
            return "this judge has judged none of it; draw a new pool"
        return (
            "all candidates of each prompt got the same reward, so none is better than another; draw more candidates "
            "or prompts, or take reward.of=logit"
        )

    def _rewarded(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Rewarded:
        columns = verdict_columns(candidates, logits)
        return self.reward.of_rounds(columns, self.first_round, self._verdicts, self.threshold)

    def members(self, row: RewardedRow) -> tuple[Candidate, ...]:
        return (row.candidate,)

    def collate(self, rows: Sequence[RewardedRow], references: Mapping[str, float]) -> RewardedBatch:
        return rewarded_batch(rows, behaviour=True)

    def step(self, model: UnifiedModel, batch: RewardedBatch) -> StepResult:
        assert batch.behaviour_BM is not None
        prompt = model.encode_prompt(batch.texts)
        logp_BM = model.image_logps(prompt, batch.drawings_B, recipe=self.recipe)
        clips = (self.clip_low, self.clip_high, self.ratio_of)
        terms = policy_loss(logp_BM, batch.behaviour_BM, batch.value_B, *clips)
        outside = logp_BM.detach().isinf().float().mean()
        logs = {"grpo/ratio": terms.ratio, "grpo/clipped": terms.clipped, "grpo/outside_filter": outside}
        if not self.kl:
            return StepResult(terms.loss, logs)
        kl = k3(logp_BM, reference_logps(model, prompt, batch.drawings_B, None, self.recipe))
        return StepResult(
            terms.loss + self.kl * kl, {**logs, "grpo/policy": terms.loss.detach(), "grpo/kl": kl.detach()}
        )


def rewarded_rows(
    known: Rewarded, groups: Sequence[np.ndarray], values: Sequence[torch.Tensor]
) -> Sequence[RewardedRow]:
    """Return a row for each candidate of some groups, made when it is asked for if they come from a pool.

    Args:
        known: The candidates.
        groups: Places in ``known`` of the candidates of each group.
        values: Their values, float64, by group.
    """
    if not groups:
        return []
    taken = known.columns.take(known.place_K[np.concatenate(groups)])
    return joined_rows(_rewarded_row, taken, torch.cat([*values]).numpy())


def _rewarded_row(candidate: Candidate, value: np.float64) -> RewardedRow:
    return RewardedRow(candidate, float(value))


def rewarded_batch(rows: Sequence[RewardedRow], behaviour: bool) -> RewardedBatch:
    """Return rows as tensors, with their behaviour log-probabilities if ``behaviour``."""
    candidates = [row.candidate for row in rows]
    acted = [torch.from_numpy(candidate.behaviour_M) for candidate in candidates] if behaviour else []
    return RewardedBatch(
        tuple(candidate.id for candidate in candidates),
        tuple(candidate.prompt.text for candidate in candidates),
        stack_drawings(candidates),
        torch.tensor([row.value for row in rows]),
        torch.stack(acted) if behaviour else None,
    )


def _is_even(reward_N: torch.Tensor) -> bool:
    return len(reward_N) < 2 or bool(reward_N.std() <= EVEN)
