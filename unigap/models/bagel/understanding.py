"""Answer questions about images with BAGEL: one forward pass over an image and all its questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from unigap.models.bagel.chat_template import BagelChatTemplate
from unigap.models.bagel.experts import UNDERSTANDING
from unigap.models.bagel.network import BagelNetwork, places
from unigap.models.engine.attention import additive, understanding_mask
from unigap.models.engine.packed_questions import PackedUnderstanding, pack
from unigap.models.engine.patches import patched

# Shape legend: B images, Q questions an image, S packed tokens, P tokens of an image with start and end, T tokens of
# all texts of an image, D hidden width, C H W image channels and sides.

SHORTEST, PIXELS = 224, 14 * 14 * 9 * 1024
"""Least pixels of the shorter side, and most pixels, of an image that is read; the authors set both in code."""


class BagelUnderstanding(PackedUnderstanding):
    """Understanding branch of BAGEL.

    Args:
        net: The network.
        template: Token ids of questions and answers.
    """

    def __init__(self, net: BagelNetwork, template: BagelChatTemplate) -> None:
        super().__init__(template, net.language_model.lm_head)
        self.net, self.template = net, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image_BPD = self._image(pixels_BCHW)
        size = image_BPD.shape[1]
        rows = pack(size, tails_BQ, self.template.pad, image_BPD.device)
        embeds_BSD = torch.cat([image_BPD, self.net.embed(rows.ids_BT)], 1)
        bias_B1SS = additive(understanding_mask(rows.segment_BS), embeds_BSD.dtype)
        # all tokens of the image have position 0
        position_BS = (rows.position_BS - (size - 1)).clamp(min=0)
        hidden, _ = self.net.language_model.model({UNDERSTANDING: embeds_BSD}, position_BS, bias_B1SS)
        return hidden[UNDERSTANDING], rows.end_BQ

    def _image(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the input embeddings (B, P, D) of images between start and end."""
        net, patch = self.net, self.net.shape.patch
        pixels_BCHW = pixels_BCHW.to(net.device).float()
        longest, (height, width) = patch * net.shape.patches_side, pixels_BCHW.shape[-2:]
        side = read_size(height, width, min(SHORTEST, longest), longest, patch)
        if (height, width) != side:
            # an interpolated edge can leave the range
            pixels_BCHW = F.interpolate(pixels_BCHW, side, mode="bicubic", antialias=True).clamp(-1, 1)
        index = places(side[0] // patch, side[1] // patch, net.shape.patches_side, net.device)
        seen = net.read(patched(pixels_BCHW, patch), index)
        marks_B2 = torch.tensor([[self.template.image_start, self.template.image_end]], device=net.device)
        marks_B2D = net.embed(marks_B2.expand(len(seen), -1))
        return torch.cat([marks_B2D[:, :1], seen, marks_B2D[:, 1:]], 1)


def read_size(height: int, width: int, shortest: int, longest: int, multiple: int) -> tuple[int, int]:
    """Return the height and width at which an image is read, multiples of ``multiple``.

    The longer side is at most ``longest``; the shorter is at least ``shortest``, unless the longer forbids it.
    """
    scale = max(min(longest / max(height, width), 1.0), shortest / min(height, width))
    sides = _scaled((height, width), scale, multiple)
    if sides[0] * sides[1] > PIXELS:
        sides = _scaled(sides, PIXELS / (sides[0] * sides[1]), multiple)
    if max(sides) > longest:
        sides = _scaled(sides, longest / max(sides), multiple)
    return sides


def _scaled(sides: tuple[int, int], scale: float, multiple: int) -> tuple[int, int]:
    height, width = (max(multiple, round(round(side * scale) / multiple) * multiple) for side in sides)
    return height, width
