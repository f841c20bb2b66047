"""Features of images whose Euclidean distance says how different two images are.

Shape legend: B images, C H W channels and sides, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.nn.functional import interpolate, normalize

from unigap.models.files.location import resolve
from unigap.models.files.pretrained import dino_from_folder

SIDE = 224
"""Side to which images are resized, unless the network reads smaller ones."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, which DINOv2 was trained with."""


class ImageFeatures(ABC):
    """Maps images to features."""

    @abstractmethod
    def of(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the features of images in [-1, 1], float32 (B, F)."""


class PixelFeatures(ImageFeatures):
    """The pixels themselves; the distance is the root mean square difference, in [0, 2]."""

    def of(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the pixels, scaled by the root of their number."""
        pixels_BF = pixels_BCHW.flatten(1).float()
        return pixels_BF / pixels_BF.shape[1] ** 0.5


class DinoFeatures(ImageFeatures):
    """The class token of a DINOv2 model, at length 1; the distance is in [0, 2].

    Args:
        checkpoint: Folder or hub id of a DINOv2 model in transformers' layout, stored as safetensors, e.g.
            ``facebook/dinov2-small``.
    """

    def __init__(self, checkpoint: str) -> None:
        resolve(checkpoint)  # fail before anything is sampled
        self.checkpoint = checkpoint
        self._net: Any = None

    @torch.no_grad()
    def of(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the class tokens of images resized to the side that the network reads."""
        if self._net is None:
            self._net = dino_from_folder(self.checkpoint)
        net = self._net.to(pixels_BCHW.device)
        side = min(SIDE, net.config.image_size)
        unit_BCHW = (pixels_BCHW.float() + 1) / 2
        sized_BCHW = interpolate(unit_BCHW, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean_C11, std_C11 = (unit_BCHW.new_tensor(row)[:, None, None] for row in (MEAN, STD))
        token_BF = net(pixel_values=(sized_BCHW - mean_C11) / std_C11).last_hidden_state[:, 0]
        return normalize(token_BF.float(), dim=-1)
