"""Interfaces for training image tokenizers: the differentiable parts of a tokenizer, and the trainer of its codes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from unigap.worlds.shapes.lesson_data import CrowdBatch
from unigap.worlds.shapes.scenes import cell_picture

# Shape legend: B images, D latent width, V codes, C H W image or latent channels and sides.

BLANK = 0
"""Code of an empty cell."""


class ImageTokenizer(nn.Module, ABC):
    """The differentiable parts of an image tokenizer; pixels are in [-1, 1]."""

    @property
    @abstractmethod
    def codes(self) -> torch.Tensor:
        """Code vectors, (V, D)."""

    @abstractmethod
    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the latents before quantisation, (B, D, H, W)."""

    @abstractmethod
    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        """Decode code vectors (B, D, H, W) to pixels (B, 3, H, W)."""


class TokenizerTrainer(nn.Module, ABC):
    """Losses that train a tokenizer to keep the kind and the jitter of every object."""

    tokenizer: ImageTokenizer

    @abstractmethod
    def forward(self, batch: CrowdBatch, step: int, steps: int) -> torch.Tensor:
        """Return the loss of one step, a scalar.

        Args:
            batch: Images with the labels of their cells.
            step: Number of the step, from 0.
            steps: Total number of steps.
        """

    @abstractmethod
    def settle(self) -> None:
        """Apply the constraints on the codes after an optimizer step."""


def reconstruction_loss(decoded_BCHW: torch.Tensor, pixels_BCHW: torch.Tensor, foreground: float) -> torch.Tensor:
    """Return the mean squared error of pixels, a scalar; pixels of objects have weight ``foreground``."""
    empty = torch.from_numpy(cell_picture(None)).to(pixels_BCHW)[:, :1, :1]
    weight = 1 + (foreground - 1) * ((pixels_BCHW - empty).abs().amax(1, keepdim=True) > 0.05)
    return (weight * (decoded_BCHW - pixels_BCHW).square()).mean()
