"""Sample images with BAGEL: Euler steps from noise to latents, with guidance in an interval of times."""

from __future__ import annotations

import torch

from unigap.models.bagel.flow import FlowSettings, ImageFlow
from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.engine.rectified_flow import check_recipe, euler, noises

# Shape legend: B prompts, N candidates a prompt, R = B * N images, M latent tokens, C numbers of a token.

TINY = 1e-8
"""Added to a norm that divides."""


class BagelSampler:
    """Generation branch of BAGEL.

    Args:
        flow: The flow, its network in eval mode.
        settings: Times, guidance interval and renormalisation.
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
        check_recipe("BAGEL", recipe)
        device = prompt.ids_BL.device
        context = self.flow.context(prompt, seeds_BN.shape[1])

        def velocity(latents_RMC: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            time_R = latents_RMC.new_full((len(latents_RMC),), time.item())
            velocity_RMC = self.flow.velocity(latents_RMC, time_R, context)
            if recipe.cfg > 1 and self._guided(time):
                null_RMC = self.flow.velocity(latents_RMC, time_R, None)
                velocity_RMC = guided_velocity(velocity_RMC, null_RMC, recipe.cfg, self.settings)
            return velocity_RMC

        noise_RMC = noises(seeds_BN.flatten(), self.flow.shape).to(device)
        return euler(noise_RMC, self.settings.times(), velocity).view(*seeds_BN.shape, *self.flow.shape)

    def _guided(self, time: torch.Tensor) -> bool:
        # compare in float32, as the authors do: a time may equal a bound
        return bool((time > self.settings.guided_from) & (time <= self.settings.guided_until))


def guided_velocity(
    velocity_RMC: torch.Tensor, null_RMC: torch.Tensor, cfg: float, settings: FlowSettings
) -> torch.Tensor:
    """Return the guided velocity, shortened to the length of the conditional one, for each image or token separately.

    The authors' code takes the length over the whole batch, so that it is right for one image at a time only.
    """
    guided_RMC = null_RMC + cfg * (velocity_RMC - null_RMC)
    over = (-1,) if settings.renorm == "channel" else (-2, -1)
    wanted, found = (torch.linalg.vector_norm(v, dim=over, keepdim=True) for v in (velocity_RMC, guided_RMC))
    return guided_RMC * (wanted / (found + TINY)).clamp(settings.renorm_min, 1)
