"""What training an image tokenizer takes: a view of it that is differentiable, and the losses of its kind of codes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from unigap.worlds.shapes.lesson_data import CrowdBatch
from unigap.worlds.shapes.scenes import cell_picture

# Shape legend: B images, D latent width, V codes, C H W image or latent channels and sides.

BLANK = 0
"""The code of every empty cell."""


class ImageTokenizer(nn.Module, ABC):
    """An image tokenizer in its parts, all of them differentiable, pixels in [-1, 1]."""

    @property
    @abstractmethod
    def codes(self) -> torch.Tensor:
        """The code vectors, (V, D)."""

    @abstractmethod
    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """What is quantised, (B, D, H, W)."""

    @abstractmethod
    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) of code vectors (B, D, H, W)."""


class TokenizerTrainer(nn.Module, ABC):
    """The losses that teach a tokenizer to keep every object of a picture, and where in its cell it stands."""

    @abstractmethod
    def forward(self, batch: CrowdBatch, step: int, steps: int) -> torch.Tensor:
        """The loss of one step, a scalar.

        Args:
            batch: Pictures and what their cells show.
            step: Number of the step, from 0.
            steps: How many there are.
        """

    @abstractmethod
    def settle(self) -> None:
        """Puts the codes where they belong after a step of the optimizer."""


def rebuilding_loss(decoded_BCHW: torch.Tensor, pixels_BCHW: torch.Tensor, foreground: float) -> torch.Tensor:
    """Mean squared error of pixels, in which those of objects count ``foreground`` times, a scalar."""
    empty = torch.from_numpy(cell_picture(None)).to(pixels_BCHW)[:, :1, :1]
    weight = 1 + (foreground - 1) * ((pixels_BCHW - empty).abs().amax(1, keepdim=True) > 0.05)
    return (weight * (decoded_BCHW - pixels_BCHW).square()).mean()
