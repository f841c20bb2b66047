"""Answer questions about images with JanusFlow: one forward pass over an image and all its questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.models.engine.packed_questions import PackedUnderstanding, pack, run_packed
from unigap.models.janus.chat_template import JanusChatTemplate
from unigap.models.janus.understanding import normalised
from unigap.models.janus_flow.network import JanusFlowNetwork

# Shape legend: B images, Q questions an image, S packed tokens, P tokens up to the end of the image, D hidden width,
# C H W image channels and sides.


class JanusFlowUnderstanding(PackedUnderstanding):
    """Understanding branch of JanusFlow.

    Args:
        net: The network.
        template: Token ids of questions and answers.
    """

    def __init__(self, net: JanusFlowNetwork, template: JanusChatTemplate) -> None:
        super().__init__(template, net.language_model.lm_head)
        self.net, self.template = net, template

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        net, prefix, processor = self.net, self.template.image_prefix, self.template.processor
        rows = pack(len(prefix), tails_BQ, processor.tokenizer.pad_token_id, net.device)
        image_BTD = net.read(normalised(pixels_BCHW.to(net.device), processor.image_processor))
        prefix_BPD = net.embed(torch.tensor([prefix], device=net.device)).expand(len(tails_BQ), -1, -1)
        # the image, its start included, takes the last places of the prefix but one
        size = image_BTD.shape[1]
        read_BPD = torch.cat([prefix_BPD[:, : -size - 1], image_BTD, prefix_BPD[:, -1:]], 1)
        embeds_BSD = torch.cat([read_BPD, net.embed(rows.ids_BT)], 1)
        return run_packed(net.language_model.model, embeds_BSD, rows), rows.end_BQ
