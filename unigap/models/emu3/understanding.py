"""Answer questions about images with Emu3: one forward pass over the image codes and all questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unigap.models.emu3.chat_template import Emu3ChatTemplate
from unigap.models.emu3.image_tokenizer import Emu3ImageTokenizer
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.packed_questions import PackedUnderstanding, pack, run_packed

# Shape legend: B images, Q questions an image, P tokens before the questions, S packed tokens, I tokens of an image,
# D hidden width, C H W image channels and sides.


class Emu3Understanding(PackedUnderstanding):
    """Understanding branch of Emu3.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``.
        layout: Token ids and line layout of an image.
        image_tokenizer: Encodes images to codes.
        template: Token ids of questions and answers.
    """

    def __init__(
        self, net: Any, layout: ImageTokens, image_tokenizer: Emu3ImageTokenizer, template: Emu3ChatTemplate
    ) -> None:
        super().__init__(template, net.lm_head)
        self.net, self.layout, self.image_tokenizer, self.template = net, layout, image_tokenizer, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prefix = self.template.shared_prefix
        rows = pack(len(prefix), tails_BQ, self.template.pad, self.net.device)
        prefix_BP = torch.tensor([prefix], device=self.net.device).expand(len(tails_BQ), -1)
        ids_BS = torch.cat([prefix_BP, rows.ids_BT], 1)
        image_BI = self.layout.to_ids(self.image_tokenizer.encode(pixels_BCHW))
        is_image_BS = ids_BS == self.template.placeholder
        # the image appears once if all questions share it, else once per question
        copies = int(is_image_BS[0].sum()) // image_BI.shape[1]
        llm = self.net.model.text_model
        embeds_BSD = llm.embed_tokens(ids_BS.masked_scatter(is_image_BS, image_BI.repeat(1, copies)))
        return run_packed(llm, embeds_BSD, rows), rows.end_BQ
