"""The oracle of the embedded world: recognise the objects in any image by template matching."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from unigap.worlds.shapes.grammar import Description
from unigap.worlds.shapes.scenes import CELL, GRID, IMAGE_SIZE, JITTER, KINDS, Placed, cell_picture, describes

# Shape legend: B images, C cells (16, row by row), T templates, D values of a cell (3 * 8 * 8), K kinds.

MAX_RESIDUAL = 0.45
"""Largest root-mean-square distance to a template, on the [-1, 1] scale, at which a cell counts as that object."""
MAX_STAIN = 0.11
"""The same for an empty cell: the faintest object is 0.40 away, so half of an object is not taken for empty."""
MAX_RATIO = 0.78
"""Largest ratio of the distances to the nearest and second nearest kind: above it the cell is ambiguous."""


@dataclass(frozen=True)
class Recognized:
    """The objects that the oracle recognises in one image.

    Attributes:
        scene: The recognised objects.
        broken: Number of cells whose content matches no template.
    """

    scene: tuple[Placed, ...]
    broken: int

    def shows(self, description: Description) -> bool:
        """Whether the image shows exactly the described objects and no broken cell."""
        return self.broken == 0 and describes(description, self.scene)


@functools.cache
def _templates() -> tuple[torch.Tensor, torch.Tensor, tuple[tuple[int, int, int], ...]]:
    """Return templates (T, D), their kinds (T,) with 0 for empty, and (kind, dy, dx) of each."""
    names = [(0, 0, 0), *itertools.product(range(1, len(KINDS) + 1), range(JITTER), range(JITTER))]
    pictures = [cell_picture(KINDS[kind - 1] if kind else None, dy, dx) for kind, dy, dx in names]
    flat = torch.stack([torch.from_numpy(picture).flatten() for picture in pictures])
    return flat, torch.tensor([kind for kind, _, _ in names]), tuple(names)


def read(pixels_BCHW: torch.Tensor) -> list[Recognized]:
    """Recognise the objects in images.

    Args:
        pixels_BCHW: Images in [-1, 1], shape (B, 3, H, W); sizes other than 32 x 32 are resized first. A cell with a
            value that is not finite is broken.

    Raises:
        ValueError: The shape is not (B, 3, H, W).
    """
    if pixels_BCHW.ndim != 4 or pixels_BCHW.shape[1] != 3 or 0 in pixels_BCHW.shape[2:]:
        raise ValueError(f"images must have shape (B, 3, H, W), got {tuple(pixels_BCHW.shape)}; stack RGB images")
    pixels = pixels_BCHW.detach().float().cpu()
    pixels = pixels.where(pixels.isfinite(), torch.nan)
    if pixels.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        pixels = F.interpolate(pixels, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
    cells_BCD = F.unfold(pixels.clamp(-1, 1), CELL, stride=CELL).transpose(1, 2)
    templates_TD, kind_T, names = _templates()
    rms_BCT = torch.cdist(cells_BCD, templates_TD) / templates_TD.shape[1] ** 0.5
    rms_BCK = torch.full((*rms_BCT.shape[:2], len(KINDS) + 1), torch.inf).scatter_reduce(
        2, kind_T.expand_as(rms_BCT), rms_BCT, "amin"
    )
    two_BC2 = rms_BCK.topk(2, dim=2, largest=False).values
    best_BC = rms_BCT.argmin(2)
    limit_BC = torch.where(kind_T[best_BC] > 0, MAX_RESIDUAL, MAX_STAIN)
    good_BC = (two_BC2[..., 0] <= limit_BC) & (two_BC2[..., 0] <= MAX_RATIO * two_BC2[..., 1])
    return [_recognized(best, good, names) for best, good in zip(best_BC.tolist(), good_BC.tolist(), strict=True)]


def _recognized(best: Sequence[int], good: Sequence[bool], names: Sequence[tuple[int, int, int]]) -> Recognized:
    scene = []
    for cell, (template, named) in enumerate(zip(best, good, strict=True)):
        kind, dy, dx = names[template]
        if named and kind:
            scene.append(Placed(KINDS[kind - 1], cell // GRID, cell % GRID, dy, dx))
    return Recognized(tuple(scene), broken=sum(not named for named in good))


def verdicts(descriptions: Sequence[Description], pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """Whether each image shows its description, bool (B,)."""
    pairs = zip(read(pixels_BCHW), descriptions, strict=True)
    return torch.tensor([recognized.shows(description) for recognized, description in pairs], dtype=torch.bool)
