"""Image autoencoder with continuous latents: diffusers' ``AutoencoderKL``, its latents cut into tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unigap.models.engine.patches import patched, unpatched
from unigap.models.engine.precision import float32_arithmetic

# Shape legend: B images, M latent tokens, C numbers of a token, H W image sides.

PATCH = 2
"""Latents per side of a token."""


class LatentCodec(nn.Module):
    """Map between pixels and latent tokens of 2 x 2 latents; stays in float32.

    Args:
        vae: diffusers' ``AutoencoderKL``.
        scale: Latents are (z - offset) * scale.
        offset: See ``scale``.
    """

    def __init__(self, vae: Any, scale: float, offset: float = 0.0) -> None:
        super().__init__()
        self.vae, self.scale, self.offset = vae, scale, offset

    @property
    def side(self) -> int:
        """Pixels per side of a latent token."""
        return PATCH * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def width(self) -> int:
        """C."""
        return PATCH**2 * self.vae.config.latent_channels

    @torch.no_grad()
    def decode(self, tokens_BMC: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Return pixels in [-1, 1], float32 (B, 3, H, W)."""
        with float32_arithmetic(tokens_BMC.device.type):
            latents = unpatched(tokens_BMC.float(), rows, columns, PATCH)
            return self.vae.decode(latents / self.scale + self.offset).sample.clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the mean latents of pixels in [-1, 1], float32 (B, M, C)."""
        with float32_arithmetic(pixels_BCHW.device.type):
            mean = self.vae.encode(pixels_BCHW.float()).latent_dist.mean
            return patched((mean - self.offset) * self.scale, PATCH)


def autoencoder_class() -> Any:
    """Return diffusers' class, which takes seconds to import.

    Raises:
        ValueError: diffusers is not installed.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise ValueError("the image autoencoder needs diffusers; pip install 'unigap[diffusion]'") from error
    return AutoencoderKL
