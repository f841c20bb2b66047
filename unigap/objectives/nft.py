"""NFT: learn from accepted and rejected images by contrast with the model that drew them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unigap.loop.plan import RoundPlan
from unigap.loop.selection import threshold_logit
from unigap.loop.verdict_columns import verdict_columns
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine.autoregressive import scored_recipe
from unigap.objectives.base import Objective, StepResult, has_velocity, step_noise
from unigap.objectives.grpo import RewardedBatch, RewardedRow, rewarded_batch, rewarded_rows
from unigap.objectives.policy_losses import advantages, nft_code_loss, nft_flow_loss
from unigap.objectives.rewards import Reward
from unigap.records import Candidate


class NFT(Objective):
    """Negative-aware fine-tuning (DiffusionNFT, arXiv 2509.16117) of flow models, and its counterpart for image codes.

    Every judged image counts, accepted ones as examples and rejected ones as counterexamples, so that a prompt with
    only accepted or only rejected images teaches too. A flow model learns at velocities, from the newest round, and is
    compared with the model that drew it. A model with an exact likelihood learns at the probabilities of its codes
    (``policy_losses.nft_code_loss``), from all rounds, and is compared with the stored probabilities of the model that
    drew each.

    Args:
        threshold: Smallest probability of yes that accepts an image, in (0, 1).
        reward: Function of the verdicts; null is 1 for an accepted image, else 0. It must be in [0, 1] unless
            ``advantage_clip`` is set.
        advantage_clip: Learn from 1/2 + clip(A / advantage_clip, -1, 1) / 2, A the advantage in the group; the authors
            take 5. 0 learns from the reward itself.
        beta: Size of the step from the old model, > 0; a larger beta is a smaller step.
        pull: For flow models, weight of the squared distance from the velocity of the old model, >= 0.
    """

    needs_stored_references = False

    def __init__(
        self,
        threshold: float = 0.5,
        reward: Reward | None = None,
        advantage_clip: float = 0.0,
        beta: float = 1.0,
        pull: float = 1.0e-4,
    ) -> None:
        threshold_logit(threshold)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be > 0 and finite, got {beta}; 1 is the authors' value")
        if not 0 <= advantage_clip < math.inf or not 0 <= pull < math.inf:
            raise ValueError(f"advantage_clip and pull must be >= 0 and finite, got {advantage_clip} and {pull}")
        self.threshold, self.reward = threshold, reward or Reward(of="accepted")
        if not advantage_clip and not self.reward.is_probability:
            raise ValueError("NFT needs rewards in [0, 1]; take reward.of=accepted or p_yes alone, or advantage_clip=5")
        self.advantage_clip, self.beta, self.pull = advantage_clip, beta, pull
        self.judges = self.reward.judges
        self.recipe = SamplingRecipe()
        self._verdicts: Mapping[str, Mapping[str, float]] = {}
        self._flow = False

    @property
    def needs_reference(self) -> bool:
        return self._flow

    def prepare(self, model: UnifiedModel, plan: RoundPlan) -> None:
        self._flow = not model.exact_likelihood
        self.needs_behaviour, self.reference_follows = not self._flow, self._flow
        if self._flow and not has_velocity(model):
            raise ValueError(
                f"NFT needs an exact likelihood or a flow's velocities, and {type(model).__name__} has neither; take "
                "SFT or DPO"
            )
        if not self._flow:
            self.recipe = scored_recipe(plan.sampling)

    def first_round(self, newest: int) -> int:
        return newest if self._flow else 0

    def learning_recipe(self) -> dict[str, Any]:
        stored = {} if self._flow else {"behaviour": "per token"}
        return {**stored, "reward": self.reward.recipe()}

    def use_verdicts(self, verdicts: Mapping[str, Mapping[str, float]]) -> None:
        self._verdicts = verdicts

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[RewardedRow]:
        columns = verdict_columns(candidates, logits)
        known = self.reward.of_rounds(columns, self.first_round, self._verdicts, self.threshold)
        groups = known.groups() if self.advantage_clip else [np.arange(len(known.place_K))]
        return rewarded_rows(known, groups, [self._values(known.reward_K[group_N]) for group_N in groups])

    def _values(self, reward_N: torch.Tensor) -> torch.Tensor:
        """Return the rewards, centred in their group with ``advantage_clip``."""
        if not self.advantage_clip:
            return reward_N
        value_N = torch.full_like(reward_N, 0.5)
        if len(reward_N) > 1:
            value_N += (advantages(reward_N) / self.advantage_clip).clamp(-1, 1) / 2
        return value_N

    def nothing_to_learn(self, logits: Mapping[str, float]) -> str:
        return "this judge has judged none of it; draw a new pool"

    def members(self, row: RewardedRow) -> tuple[Candidate, ...]:
        return (row.candidate,)

    def collate(self, rows: Sequence[RewardedRow], references: Mapping[str, float]) -> RewardedBatch:
        return rewarded_batch(rows, behaviour=self.needs_behaviour)

    def step(self, model: UnifiedModel, batch: RewardedBatch) -> StepResult:
        prompt = model.encode_prompt(batch.texts)
        if batch.behaviour_BM is not None:
            logp_BM = model.image_logps(prompt, batch.drawings_B, recipe=self.recipe)
            loss = nft_code_loss(logp_BM, batch.behaviour_BM, batch.value_B, self.beta)
            ratio = (logp_BM.detach() - batch.behaviour_BM).exp().mean()
            return StepResult(loss, {"nft/ratio": ratio, "nft/reward": batch.value_B.mean()})
        noise_B = step_noise(model, len(batch.texts))
        assert noise_B is not None
        with model.as_reference():
            old = model.velocity_terms(prompt, batch.drawings_B, noise_B).velocity_RMC
        new = model.velocity_terms(prompt, batch.drawings_B, noise_B)
        image = (batch.drawings_B, new.mixed_RMC, new.time_R, batch.value_B)
        loss = nft_flow_loss(new.velocity_RMC, old, *image, self.beta)
        moved = (new.velocity_RMC - old).square().mean()
        return StepResult(loss + self.pull * moved, {"nft/moved": moved.detach(), "nft/reward": batch.value_B.mean()})
