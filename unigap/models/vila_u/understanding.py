"""Answer questions about images with VILA-U: one forward pass over the image's code vectors and all questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.models.engine.packed_questions import PackedUnderstanding, pack, run_packed
from unigap.models.vila_u.chat_template import VilaUChatTemplate
from unigap.models.vila_u.network import VilaUNetwork

# Shape legend: B images, Q questions an image, P tokens before the image, M positions of an image, T tokens of the
# questions, S = P + M + T, H width of the trunk.


class VilaUUnderstanding(PackedUnderstanding):
    """Understanding branch of VILA-U.

    Args:
        net: The network.
        template: Token ids of questions and answers.
    """

    def __init__(self, net: VilaUNetwork, template: VilaUChatTemplate) -> None:
        super().__init__(template, net.llm.lm_head)
        self.net, self.template = net, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        before = self.template.before_image
        rows = pack(len(before) + self.net.shape.positions, tails_BQ, self.template.pad, self.net.device)
        before_BP = torch.tensor([before], device=self.net.device).expand(len(tails_BQ), -1)
        image_BMH = self.net.embed_codes(self.net.image_tokenizer.encode(pixels_BCHW))
        embeds_BSH = torch.cat([self.net.embed(before_BP), image_BMH, self.net.embed(rows.ids_BT)], 1)
        return run_packed(self.net.llm.model, embeds_BSH, rows), rows.end_BQ
