"""A judge of your own: it checks that the image holds the colours its prompt names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from unigap.judges import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate

# Shape legend: B images, P pixels, K colours.

COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.6, 0.2),
    "blue": (0.1, 0.3, 0.9),
    "yellow": (1.0, 0.8, 0.0),
    "purple": (0.6, 0.2, 0.8),
    "black": (0.1, 0.1, 0.1),
    "white": (1.0, 1.0, 1.0),
}


class ColourJudge(Judge):
    """Accepts an image if each colour its prompt names covers enough of it; a prompt without colours is accepted.

    Args:
        least: Smallest share of the image, in (0, 1).
    """

    def __init__(self, least: float = 0.01) -> None:
        if not 0 < least < 1:
            raise ValueError(f"least must be a share in (0, 1), got {least}; 0.01 suits small objects")
        self.least = least

    @property
    def name(self) -> str:
        return "colour"

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        palette_KC = torch.tensor(list(COLOURS.values()), device=pixels_BCHW.device) * 2 - 1
        pixels_BPC = pixels_BCHW.float().flatten(2).transpose(1, 2)
        nearest_BP = torch.cdist(pixels_BPC, palette_KC.expand(len(pixels_BPC), -1, -1)).argmin(-1)
        share_BK = torch.stack([(nearest_BP == k).float().mean(1) for k in range(len(COLOURS))], 1)
        scarcest = [min((share_BK[i, k] for k in _named(c.prompt.text)), default=1.0) for i, c in enumerate(candidates)]
        # log-odds above 0 mean yes; 1e-4 keeps them finite if a colour is missing
        return torch.log((torch.as_tensor(scarcest, device=pixels_BCHW.device) + 1e-4) / self.least)


def _named(text: str) -> list[int]:
    words = set(re.findall(r"[a-z]+", text.lower()))
    return [k for k, colour in enumerate(COLOURS) if colour in words]
