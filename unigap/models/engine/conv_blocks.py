"""Blocks of convolutional image autoencoders, in the names of VQGAN's (Esser et al. 2021)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

# Shape legend: B images, C channels, H W sides, M = H * W positions.

EPSILON = 1e-6
"""Epsilon of every group norm."""


class Residual(nn.Module):
    """Residual block of two convolutions, each after a group norm."""

    def __init__(self, in_width: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, in_width, EPSILON), conv3(in_width, width)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width, EPSILON), conv3(width, width)
        self.shortcut = nn.Identity() if in_width == width else nn.Conv2d(in_width, width, 1)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of the same resolution."""
        changed_BCHW = self.conv1(F.silu(self.norm1(hidden_BCHW)))
        return self.shortcut(hidden_BCHW) + self.conv2(F.silu(self.norm2(changed_BCHW)))


class Attention(nn.Module):
    """Residual block of single-head self-attention over all positions."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, EPSILON)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of the same resolution."""
        normed_BCHW = self.norm(hidden_BCHW)
        query, key, value = (conv(normed_BCHW).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        attended_BMC = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return hidden_BCHW + self.proj_out(attended_BMC.transpose(1, 2).reshape(hidden_BCHW.shape))


class Upsample(nn.Module):
    """Double the resolution by nearest-neighbour upsampling and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv3(width, width)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of twice the resolution."""
        return self.conv(F.interpolate(hidden_BCHW, scale_factor=2, mode="nearest"))


def conv3(in_width: int, width: int) -> nn.Conv2d:
    """Return a convolution of size 3 that keeps the resolution."""
    return nn.Conv2d(in_width, width, 3, padding=1)
