"""Looking with a Show-o: the image as codes, then all questions about it in one pass, and what the model answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from unigap.models.attention import additive, run_trunk
from unigap.models.packed_questions import pack
from unigap.models.showo_dialogue import ShowODialogue
from unigap.models.showo_masks import sees_while_reading
from unigap.models.showo_network import ShowONetwork

# Shape legend: B images, Q questions an image, T answer tokens, S packed tokens, P tokens of an image and its marks,
# M image tokens, D hidden width, V words, C H W image channels and sides.


class ShowOReader:
    """The understanding half of a Show-o.

    Args:
        net: The network.
        dialogue: How it is asked.
    """

    def __init__(self, net: ShowONetwork, dialogue: ShowODialogue) -> None:
        self.net, self.dialogue = net, dialogue

    def judge_logit(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> torch.Tensor:
        """Log-odds of "yes" over "no", float32 (B, Q)."""
        tails_BQ = [[self.dialogue.question_ids(question) for question in row] for row in questions_BQ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails_BQ)
        rows_B1 = torch.arange(len(ends_BQ), device=hidden_BSD.device)[:, None]
        logits_BQV = self.net.llm.lm_head(hidden_BSD[rows_B1, ends_BQ]).float()
        return logits_BQV[..., self.dialogue.yes].logsumexp(-1) - logits_BQV[..., self.dialogue.no].logsumexp(-1)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of answers (B, Q, T) and where they have tokens."""
        replies_BQ = [[self.dialogue.answer_ids(answer) for answer in row] for row in answers_BQ]
        tails_BQ = [
            [self.dialogue.question_ids(question) + reply for question, reply in zip(*rows, strict=True)]
            for rows in zip(questions_BQ, replies_BQ, strict=True)
        ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails_BQ)
        device = hidden_BSD.device
        length_BQ = torch.tensor([[len(reply) for reply in row] for row in replies_BQ], device=device)
        offset_T = torch.arange(int(length_BQ.max()), device=device)
        mask_BQT = offset_T < length_BQ[..., None]
        at_BQT = torch.where(mask_BQT, ends_BQ[..., None] - length_BQ[..., None] + offset_T, 0)
        target_BQT = torch.zeros_like(at_BQT)
        every = itertools.chain.from_iterable(itertools.chain.from_iterable(replies_BQ))
        target_BQT[mask_BQT] = torch.tensor(list(every), device=device)
        rows_B11 = torch.arange(len(tails_BQ), device=device)[:, None, None]
        logp_BQTV = self.net.llm.lm_head(hidden_BSD[rows_B11, at_BQT]).float().log_softmax(-1)
        return logp_BQTV.gather(-1, target_BQT[..., None])[..., 0].masked_fill(~mask_BQT, 0), mask_BQT

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the trunk once over [image | tail 1 | tail 2 ...], each tail blind to the others.

        Returns:
            Hidden states (B, S, D) and the position of each tail's last token (B, Q).
        """
        image_BP = self._image(pixels_BCHW)
        rows = pack(image_BP.shape[1], tails_BQ, self.dialogue.pad, image_BP.device)
        embeds_BSD = self.net.embed(torch.cat([image_BP, rows.ids_BT], 1))
        bias_B1SS = additive(sees_while_reading(rows.segment_BS), embeds_BSD.dtype)
        out = run_trunk(self.net.llm.model, embeds_BSD, bias_B1SS, rows.place_BS)
        return out.last_hidden_state, rows.end_BQ

    @torch.no_grad()
    def _image(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Ids of images between their marks, and what says that they are to be read, (B, P)."""
        side = self.net.shape.side
        pixels_BCHW = pixels_BCHW.to(self.net.device).float()
        if pixels_BCHW.shape[-2:] != (side, side):
            pixels_BCHW = F.interpolate(pixels_BCHW, (side, side), mode="bicubic", antialias=True)
        with torch.autocast(pixels_BCHW.device.type, enabled=False):
            codes_BM = self.net.magvit.encode(pixels_BCHW)
        nothing_BM = torch.zeros_like(codes_BM, dtype=torch.bool)
        image_BI = self.net.image_ids(codes_BM, nothing_BM, (self.dialogue.image_start, self.dialogue.image_end))
        return F.pad(image_BI, (1, 0), value=self.dialogue.read)
