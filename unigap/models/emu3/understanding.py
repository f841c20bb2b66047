"""Looking with an Emu3: the image as codes, then all questions about it in one pass, and what the model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unigap.models.emu3.chat_template import Emu3ChatTemplate
from unigap.models.emu3.image_tokenizer import Emu3ImageTokenizer
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.packed_questions import PackedReader, pack, read_packed

# Shape legend: B images, Q questions an image, P tokens before the questions, S packed tokens, I tokens of an image,
# D hidden width, C H W image channels and sides.


class Emu3Reader(PackedReader):
    """The understanding half of an Emu3.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``.
        words: How it writes images.
        pictures: How it sees them.
        template: How it is asked.
    """

    def __init__(self, net: Any, words: ImageTokens, pictures: Emu3ImageTokenizer, template: Emu3ChatTemplate) -> None:
        super().__init__(template, net.lm_head)
        self.net, self.words, self.pictures, self.template = net, words, pictures, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prefix = self.template.shared_prefix
        rows = pack(len(prefix), tails_BQ, self.template.pad, self.net.device)
        prefix_BP = torch.tensor([prefix], device=self.net.device).expand(len(tails_BQ), -1)
        ids_BS = torch.cat([prefix_BP, rows.ids_BT], 1)
        image_BI = self.words.written(self.pictures.encode(pixels_BCHW))
        shown_BS = ids_BS == self.template.placeholder
        # once where all questions share it, else once in each
        times = int(shown_BS[0].sum()) // image_BI.shape[1]
        llm = self.net.model.text_model
        embeds_BSD = llm.embed_tokens(ids_BS.masked_scatter(shown_BS, image_BI.repeat(1, times)))
        return read_packed(llm, embeds_BSD, rows), rows.end_BQ
