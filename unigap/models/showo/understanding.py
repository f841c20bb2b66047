"""Answer questions about images with Show-o: one forward pass over the image codes and all questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from unigap.models.engine.attention import additive, run_trunk, understanding_mask
from unigap.models.engine.packed_questions import PackedUnderstanding, pack
from unigap.models.engine.precision import float32_arithmetic
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.network import ShowONetwork

# Shape legend: B images, Q questions an image, T tokens of all texts of an image, S packed tokens, P tokens of an image
# with special tokens, M image tokens, D hidden width, C H W image channels and sides.


class ShowOUnderstanding(PackedUnderstanding):
    """Understanding branch of Show-o.

    Args:
        net: The network.
        template: Token ids of questions and answers.
    """

    def __init__(self, net: ShowONetwork, template: ShowOChatTemplate) -> None:
        super().__init__(template, net.llm.lm_head)
        self.net, self.template = net, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image_BP = self._image(pixels_BCHW)
        rows = pack(image_BP.shape[1], tails_BQ, self.template.pad, image_BP.device)
        embeds_BSD = self.net.embed(torch.cat([image_BP, rows.ids_BT], 1))
        bias_B1SS = additive(understanding_mask(rows.segment_BS), embeds_BSD.dtype)
        out = run_trunk(self.net.llm.model, embeds_BSD, bias_B1SS, rows.position_BS)
        return out.last_hidden_state, rows.end_BQ

    @torch.no_grad()
    def _image(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the understanding token and the images between start and end, as token ids (B, P)."""
        side = self.net.shape.side
        pixels_BCHW = pixels_BCHW.to(self.net.device).float()
        if pixels_BCHW.shape[-2:] != (side, side):
            pixels_BCHW = F.interpolate(pixels_BCHW, (side, side), mode="bicubic", antialias=True)
        with float32_arithmetic(pixels_BCHW.device.type):
            codes_BM = self.net.magvit.encode(pixels_BCHW)
        unmasked_BM = torch.zeros_like(codes_BM, dtype=torch.bool)
        image_BI = self.net.image_ids(codes_BM, unmasked_BM, (self.template.image_start, self.template.image_end))
        return F.pad(image_BI, (1, 0), value=self.template.understanding)
