"""Surrogate of the log-likelihood of images under a flow: minus the flow-matching error at seeded times and noises."""

from __future__ import annotations

import hashlib
from typing import Protocol

import torch

from unigap.models.base import FlowTerms, PromptBatch
from unigap.models.engine.rectified_flow import training_draws

# Shape legend: B prompts, R images (those of one prompt are consecutive), K draws an image, M latent tokens,
# C numbers of a token.

SEED_BITS = 63


class Flow(Protocol):
    """Flow of the latents of images of one size.

    Attributes:
        shape: M and C.
    """

    shape: tuple[int, int]

    @property
    def device(self) -> torch.device:
        """Device of the network."""

    def velocity_given(
        self, prompt: PromptBatch, images: int, latents_RMC: torch.Tensor, time_R: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity from image (time 0) to noise (time 1), float32 (R, M, C), differentiable.

        Args:
            prompt: B prompts.
            images: R / B; the images of one prompt are consecutive.
            latents_RMC: Latents at their times.
            time_R: Times in [0, 1].
        """


class FlowLikelihood:
    """Surrogate likelihood of given images.

    Args:
        flow: The flow.
        draws: K, if no seeds are given.
        shift: Shift of the times.
    """

    def __init__(self, flow: Flow, draws: int, shift: float) -> None:
        self.flow, self.draws, self.shift = flow, draws, shift

    def surrogate(self, prompt: PromptBatch, latents_RMC: torch.Tensor, seeds_R: torch.Tensor | None) -> torch.Tensor:
        """Return minus the squared error of the velocity, averaged over the numbers of each token, float32 (R, M).

        Raises:
            ValueError: The images or the seeds have another shape or type, or the number of images is not a multiple of
                the number of prompts.
        """
        images, shape = prompt.images_each(latents_RMC), self.flow.shape
        if tuple(latents_RMC.shape[1:]) != shape or not latents_RMC.is_floating_point():
            raise ValueError(
                f"images must be floating-point latents of shape {shape} each, got {latents_RMC.dtype} of "
                f"shape {tuple(latents_RMC.shape[1:])}; take those of a model with the same image size"
            )
        seeds_RK = self._seeds(prompt, images) if seeds_R is None else _checked(seeds_R, len(latents_RMC))[:, None]
        draws = seeds_RK.shape[1]
        device = self.flow.device
        time_S, noise_SMC = (t.to(device) for t in training_draws(seeds_RK.flatten().cpu(), shape, self.shift))
        clean_SMC = latents_RMC.to(device).float().repeat_interleave(draws, 0)
        mixed_SMC = torch.lerp(clean_SMC, noise_SMC, time_S[:, None, None])
        velocity_SMC = self.flow.velocity_given(prompt, images * draws, mixed_SMC, time_S)
        term_SM = -(velocity_SMC - (noise_SMC - clean_SMC)).square().mean(-1)
        return term_SM.view(len(latents_RMC), draws, -1).mean(1)

    def velocity_terms(self, prompt: PromptBatch, latents_RMC: torch.Tensor, seeds_R: torch.Tensor) -> FlowTerms:
        """Return the predicted velocity between images and noise, see ``UnifiedModel.velocity_terms``."""
        images, device = prompt.images_each(latents_RMC), self.flow.device
        draws = training_draws(_checked(seeds_R, len(latents_RMC)).cpu(), self.flow.shape, self.shift)
        time_R, noise_RMC = (tensor.to(device) for tensor in draws)
        mixed_RMC = torch.lerp(latents_RMC.to(device).float(), noise_RMC, time_R[:, None, None])
        velocity_RMC = self.flow.velocity_given(prompt, images, mixed_RMC, time_R)
        return FlowTerms(velocity_RMC, mixed_RMC, time_R)

    def _seeds(self, prompt: PromptBatch, images: int) -> torch.Tensor:
        """Return K seeds per image as a function of its prompt only, int64 (R, K)."""
        rows = zip(prompt.ids_BL.tolist(), prompt.mask_BL.bool().tolist(), strict=True)
        texts = ([token for token, is_token in zip(*row, strict=True) if is_token] for row in rows)
        seeds_BK = torch.tensor([[_seed(text, draw) for draw in range(self.draws)] for text in texts])
        return seeds_BK.repeat_interleave(images, 0)


def _seed(text: list[int], draw: int) -> int:
    return int.from_bytes(hashlib.sha256(repr((text, draw)).encode()).digest()[:8]) >> 64 - SEED_BITS


def _checked(seeds_R: torch.Tensor, images: int) -> torch.Tensor:
    if seeds_R.shape != (images,) or seeds_R.dtype != torch.int64:
        raise ValueError(
            f"noise_R must be one int64 seed an image, shape ({images},), got {seeds_R.dtype} of shape "
            f"{tuple(seeds_R.shape)}"
        )
    return seeds_R
