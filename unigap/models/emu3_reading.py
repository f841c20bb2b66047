"""Looking with an Emu3: the image as codes, then all questions about it in one pass, and what the model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unigap.models.emu3_dialogue import Emu3Dialogue
from unigap.models.emu3_image_words import ImageWords
from unigap.models.emu3_pictures import Emu3Pictures
from unigap.models.packed_questions import PackedReader, pack, read_packed

# Shape legend: B images, Q questions an image, P tokens before the questions, S packed tokens, D hidden width,
# C H W image channels and sides.


class Emu3Reader(PackedReader):
    """The understanding half of an Emu3.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``.
        words: How it writes images.
        pictures: How it sees them.
        dialogue: How it is asked.
    """

    def __init__(self, net: Any, words: ImageWords, pictures: Emu3Pictures, dialogue: Emu3Dialogue) -> None:
        super().__init__(dialogue, net.lm_head)
        self.net, self.words, self.pictures, self.dialogue = net, words, pictures, dialogue

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prefix_P = torch.tensor(self.dialogue.image_prefix, device=self.net.device)
        rows = pack(len(prefix_P), tails_BQ, self.dialogue.pad, self.net.device)
        image = self.words.written(self.pictures.encode(pixels_BCHW))
        prefix_BP = prefix_P.expand(len(tails_BQ), -1)
        prefix_BP = prefix_BP.masked_scatter(prefix_BP == self.dialogue.placeholder, image)
        llm = self.net.model.text_model
        embeds_BSD = llm.embed_tokens(torch.cat([prefix_BP, rows.ids_BT], 1))
        return read_packed(llm, embeds_BSD, rows), rows.end_BQ
