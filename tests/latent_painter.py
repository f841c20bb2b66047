"""A tiny model whose images are latents: noise seeds become float16 latents, which decode to coloured patches."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.records import DrawingFormat

spec = importlib.util.spec_from_file_location("painter", Path(__file__).parents[1] / "docs/examples/own_model.py")
assert spec is not None and spec.loader is not None
painter: Any = importlib.util.module_from_spec(spec)
sys.modules["painter"] = painter
spec.loader.exec_module(painter)

TOKENS, CHANNELS = painter.GRID * painter.GRID, 3


class LatentPainter(painter.Painter):  # type: ignore[misc]
    """The example's painter, with one latent of three channels for each patch; it flows from noise in one step."""

    exact_likelihood: ClassVar[bool] = False

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__(width, seed)
        self.drawing_format = DrawingFormat("float16", (TOKENS, CHANNELS))

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        with torch.no_grad():
            state_BD = self._states(prompt.ids_BL, prompt.mask_BL)[:, -1]
        noise = [_noise(seed) for seed in seeds_BN.flatten().tolist()]
        latents_BN = torch.stack(noise).view(*seeds_BN.shape, TOKENS, CHANNELS)
        return Samples(latents_BN + state_BD[:, None, None, :CHANNELS], None)

    def image_logps(
        self, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: torch.Tensor | None = None
    ) -> torch.Tensor:
        prompt = prompt.repeat(prompt.images_each(drawings_R))
        state_RD = self._states(prompt.ids_BL, prompt.mask_BL)[:, -1]
        seeds: Sequence[int] = range(len(drawings_R)) if noise_R is None else noise_R.tolist()
        error = drawings_R - torch.stack([_noise(seed) for seed in seeds]) - state_RD[:, None, :CHANNELS]
        return -error.square().sum(-1)

    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        grid_BCHW = drawings_B.float().clamp(-1, 1).transpose(1, 2).unflatten(2, (painter.GRID, painter.GRID))
        return grid_BCHW.repeat_interleave(painter.PATCH, 2).repeat_interleave(painter.PATCH, 3)

    def drawing_digest(self) -> str:
        return "latents of the painter"


def _noise(seed: int) -> torch.Tensor:
    return torch.randn(TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))
