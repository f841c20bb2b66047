"""Figures of the images of one prompt that need no judge: reward hacking often shows in the pictures first.

Shape legend: N images of a prompt, C H W channels and sides, F features, M image tokens, D codes of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

EDGE = 0.25
"""Change of grey between neighbouring pixels, of images in [-1, 1], from which there is an edge."""


def spread(feature_NF: Tensor) -> float:
    """Return the mean Euclidean distance between two of the images; N >= 2."""
    return float(torch.pdist(feature_NF.float()).mean())


def edge_density(pixels_NCHW: Tensor) -> float:
    """Return the share of pixels on an edge; blurred and emptied images have few.

    Args:
        pixels_NCHW: Images in [-1, 1].

    >>> halves = torch.ones(1, 3, 4, 5)
    >>> halves[..., 2:] = -1
    >>> edge_density(halves)
    0.25
    """
    grey_NHW = pixels_NCHW.float().mean(1)
    down_NHW = grey_NHW[:, 1:, :-1] - grey_NHW[:, :-1, :-1]
    right_NHW = grey_NHW[:, :-1, 1:] - grey_NHW[:, :-1, :-1]
    return float((down_NHW.square() + right_NHW.square() >= EDGE**2).float().mean())


def code_entropy(code_NM: Tensor) -> float:
    """Return the entropy of the codes of all images together, in nats; with D codes a token, the mean over these.

    Args:
        code_NM: Image codes, int64 (N, M) or (N, M, D).

    >>> round(code_entropy(torch.tensor([[0, 1], [0, 1]])), 4)
    0.6931
    """
    code_NMD = code_NM if code_NM.ndim == 3 else code_NM[..., None]
    entropies = []
    for code_R in code_NMD.flatten(0, 1).unbind(-1):
        share_K = torch.unique(code_R, return_counts=True)[1].double() / len(code_R)
        entropies.append(-(share_K * share_K.log()).sum())
    return float(torch.stack(entropies).mean())


def duplicates(pixels_NCHW: Tensor) -> float:
    """Return the share of images that repeat another one of the group, as 8-bit images, in [0, 1).

    >>> duplicates(torch.tensor([0.0, 0.0, 0.5, 1.0]).view(4, 1, 1, 1))
    0.25
    """
    level_NX = ((pixels_NCHW.float() + 1) * 127.5).round().flatten(1)
    return 1 - len(torch.unique(level_NX, dim=0)) / len(level_NX)
