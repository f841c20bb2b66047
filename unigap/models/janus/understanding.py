"""Answer questions about images with Janus: one forward pass over an image and all its questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.engine.packed_questions import PackedUnderstanding, pack, run_packed
from unigap.models.janus.chat_template import JanusChatTemplate

# Shape legend: B images, Q questions an image, S packed tokens, D hidden width, C H W image channels and sides.


class JanusUnderstanding(PackedUnderstanding):
    """Understanding branch of Janus.

    Args:
        net: transformers' ``JanusForConditionalGeneration``.
        template: Token ids of questions and answers.
    """

    def __init__(self, net: Any, template: JanusChatTemplate) -> None:
        super().__init__(template, net.lm_head)
        self.net, self.template = net, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prefix, pad = self.template.image_prefix, self.template.tokenizer.pad_token_id
        rows = pack(len(prefix), tails_BQ, pad, self._device)
        prefix_BP = torch.tensor([prefix], device=self._device).expand(len(tails_BQ), -1)
        embeds_BSD = self._with_image(torch.cat([prefix_BP, rows.ids_BT], 1), pixels_BCHW)
        return run_packed(self.net.model.language_model, embeds_BSD, rows), rows.end_BQ

    def _with_image(self, ids_BS: torch.Tensor, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        shown = normalised(pixels_BCHW.to(self._device), self.template.processor.image_processor)
        features = self.net.model.get_image_features(shown.to(self.net.dtype)).pooler_output
        embeds_BSD = self.net.model.language_model.embed_tokens(ids_BS)
        is_image = (ids_BS == self.net.config.image_token_id)[..., None]
        return embeds_BSD.masked_scatter(is_image, features.to(embeds_BSD.dtype))

    @property
    def _device(self) -> torch.device:
        return self.net.model.language_model.embed_tokens.weight.device


def normalised(pixels_BCHW: torch.Tensor, image_processor: Any) -> torch.Tensor:
    """Return pixels in [-1, 1] as the vision encoder reads them: its size, mean 0 and standard deviation 1.

    Args:
        pixels_BCHW: The pixels.
        image_processor: Has ``size``, ``image_mean`` and ``image_std``.
    """
    side = (image_processor.size["height"], image_processor.size["width"])
    if pixels_BCHW.shape[-2:] != side:
        pixels_BCHW = F.interpolate(pixels_BCHW, side, mode="bicubic", antialias=True)
    statistics = (image_processor.image_mean, image_processor.image_std)
    mean, std = (torch.tensor(values, device=pixels_BCHW.device).view(3, 1, 1) for values in statistics)
    return ((pixels_BCHW + 1) / 2 - mean) / std
