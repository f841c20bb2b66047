"""Sample images with JanusFlow: Euler steps from noise to latents, with each prompt encoded once."""

from __future__ import annotations

import torch

from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.engine.rectified_flow import check_recipe, euler
from unigap.models.janus_flow.flow import FlowSettings, ImageFlow

# Shape legend: B prompts, N candidates a prompt, R = B * N images, M latent tokens, C numbers of a token.


class JanusFlowSampler:
    """Generation branch of JanusFlow.

    Args:
        flow: The flow, its network in eval mode.
        settings: Number of steps.
    """

    def __init__(self, flow: ImageFlow, settings: FlowSettings) -> None:
        self.flow, self.settings = flow, settings

    @torch.no_grad()
    def sample(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> torch.Tensor:
        """Return N images per prompt as latents, float32 (B, N, M, C).

        Raises:
            ValueError: The recipe filters or scales probabilities, which a flow does not have, or the velocities are
                not finite.
        """
        check_recipe("JanusFlow", recipe)
        guided = recipe.cfg != 1
        context = self.flow.context(*prompt.to_prefill(guided), seeds_BN.shape[1])
        noise_RMC = self.flow.noises(seeds_BN.flatten())

        def velocity(latents_RMC: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            time_R = latents_RMC.new_full((len(latents_RMC),), time.item())
            found = self.flow.velocities(latents_RMC, time_R, context)
            if not guided:
                return found
            cond_RMC, null_RMC = found.chunk(2)
            return recipe.cfg * cond_RMC - (recipe.cfg - 1) * null_RMC

        return euler(noise_RMC, self.settings.times(), velocity).view(*seeds_BN.shape, *self.flow.shape)
