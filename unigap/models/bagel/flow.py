"""Rectified flow over latent tokens: settings, the velocity given a prompt, and the times of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from unigap.models.bagel.experts import GENERATION, UNDERSTANDING, KeysValues
from unigap.models.bagel.network import BagelNetwork, places
from unigap.models.base import PromptBatch
from unigap.models.engine.attention import additive, causal, positions
from unigap.models.engine.rectified_flow import shifted

# Shape legend: B prompts, R images (those of one prompt are consecutive), L prompt tokens, M latent tokens of an image,
# C numbers of a latent token, S = L + 2 + M tokens, D hidden width.


@dataclass(frozen=True)
class FlowSettings:
    """How images are sampled, and how given images are measured; the defaults are the authors'.

    Args:
        timesteps: Times from noise to image, >= 2; 50 times are 49 Euler steps.
        shift: Sampling times t become shift * t / (1 + (shift - 1) * t), > 0; above 1, more steps are spent on noise.
        guided_from: Guidance applies to times above this, after the shift, in [0, 1].
        guided_until: Guidance applies to times up to this, after the shift, in [0, 1].
        renorm: What guidance may not lengthen: the velocity of an image (``global``) or of each token (``channel``).
        renorm_min: Smallest factor by which a guided velocity is shortened, in [0, 1].
        training_shift: Shift of the times at which given images are measured, > 0.
        likelihood_draws: Times and noises averaged over if no seeds are given, >= 1. Each costs a forward pass.

    Raises:
        ValueError: A value is out of range.
    """

    timesteps: int = 50
    shift: float = 3.0
    guided_from: float = 0.4
    guided_until: float = 1.0
    renorm: Literal["global", "channel"] = "global"
    renorm_min: float = 0.0
    training_shift: float = 1.0
    likelihood_draws: int = 4

    def __post_init__(self) -> None:
        if self.timesteps < 2:
            raise ValueError(f"timesteps must be >= 2, got {self.timesteps}; 50 is usual")
        for name in ("shift", "training_shift"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}; 1 is no shift")
        if not 0 <= self.guided_from <= self.guided_until <= 1:
            raise ValueError(
                f"guidance from {self.guided_from} to {self.guided_until}: both must be in [0, 1], in this order"
            )
        if self.renorm not in ("global", "channel"):
            raise ValueError(f"renorm must be 'global' or 'channel', got {self.renorm!r}")
        if not 0 <= self.renorm_min <= 1:
            raise ValueError(f"renorm_min must be in [0, 1], got {self.renorm_min}")
        if self.likelihood_draws < 1:
            raise ValueError(f"likelihood_draws must be >= 1, got {self.likelihood_draws}")

    def numbers(self) -> list[float]:
        """Return all settings as numbers."""
        named = (self.timesteps, self.shift, self.guided_from, self.guided_until, self.renorm_min)
        return [*named, self.renorm == "channel", self.training_shift, self.likelihood_draws]

    def times(self) -> torch.Tensor:
        """Return the times of sampling from 1 to 0, float32 (timesteps,)."""
        return shifted(torch.linspace(1, 0, self.timesteps), self.shift)


@dataclass(frozen=True)
class Context:
    """Prompts that images attend to, one row per image.

    Attributes:
        keys_values: Keys and values of the prompts, by layer.
        mask_RL: 1 for tokens, 0 for padding.
    """

    keys_values: Sequence[KeysValues]
    mask_RL: torch.Tensor


class ImageFlow:
    """Flow of the latents of images of one size.

    Args:
        net: The network.
        marks: Token ids of the start and the end of an image.
        rows: Latent tokens per column of an image.
        columns: Latent tokens per row of an image.
    """

    def __init__(self, net: BagelNetwork, marks: tuple[int, int], rows: int, columns: int) -> None:
        self.net, self.marks = net, marks
        self.grid = (rows, columns)
        self.shape: tuple[int, int] = (rows * columns, net.shape.latent_width)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.net.device

    def velocity_given(
        self, prompt: PromptBatch, images: int, latents_RMC: torch.Tensor, time_R: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity given prompts with ``images`` consecutive images each, see ``velocity``."""
        return self.velocity(latents_RMC, time_R, self.context(prompt, images))

    def context(self, prompt: PromptBatch, images: int) -> Context:
        """Run the prompts once, and repeat their keys and values for ``images`` consecutive images each."""
        embeds_BLD = self.net.embed(prompt.ids_BL)
        bias_B1LL = additive(causal(prompt.mask_BL), embeds_BLD.dtype)
        tokens = {UNDERSTANDING: embeds_BLD}
        _, keys_values = self.net.language_model.model(tokens, positions(prompt.mask_BL), bias_B1LL)
        repeated = [
            (keys.repeat_interleave(images, 0), values.repeat_interleave(images, 0)) for keys, values in keys_values
        ]
        return Context(repeated, prompt.mask_BL.repeat_interleave(images, 0))

    def velocity(self, latents_RMC: torch.Tensor, time_R: torch.Tensor, context: Context | None) -> torch.Tensor:
        """Return the velocity from image to noise, float32 (R, M, C).

        All tokens of an image, its start and its end included, attend to the prompt and to each other at one position,
        the one after the prompt. Start and end pass through the understanding expert, latents through the other.

        Args:
            latents_RMC: Latents at their times.
            time_R: Times in [0, 1]; 1 is noise.
            context: Prompts of the images; ``None`` is the null prompt, which has no tokens.
        """
        net, device = self.net, latents_RMC.device
        index_M = places(*self.grid, net.shape.latent_side, device)
        inputs_RMD = net.vae2llm(latents_RMC.to(net.dtype)) + net.time_embedder(time_R)[:, None]
        # made on the device, since the host waits for a copy
        marks_R2 = torch.where(torch.arange(2, device=device) == 0, *self.marks).expand(len(latents_RMC), -1)
        tokens = {UNDERSTANDING: net.embed(marks_R2), GENERATION: inputs_RMD + net.latent_pos_embed(index_M)}
        position_R1, bias, cache = self._after(context, len(latents_RMC), device)
        hidden, _ = net.language_model.model(tokens, position_R1, bias, cache)
        return net.llm2vae(hidden[GENERATION]).float()

    def _after(
        self, context: Context | None, rows: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None, Sequence[KeysValues] | None]:
        """Return the position of the images, the mask of their keys, and the keys and values before them."""
        if context is None:
            return torch.zeros(rows, 1, dtype=torch.int64, device=device), None, None
        mask_RL = context.mask_RL
        own_RT = mask_RL.new_ones(rows, 2 + self.shape[0])
        allowed_R11S = torch.cat([mask_RL, own_RT], 1).bool()[:, None, None]
        bias_R1TS = additive(allowed_R11S, self.net.dtype).expand(-1, -1, own_RT.shape[1], -1)
        return mask_RL.sum(1, keepdim=True), bias_R1TS, context.keys_values
