"""Looking with a Janus: one pass over the image and all questions about it, and what the model answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.attention import additive, run_trunk
from unigap.models.janus_dialogue import JanusDialogue

# Shape legend: B images, Q questions an image, T answer tokens, S packed tokens, D hidden width, V words,
# C H W image channels and sides.


class JanusReader:
    """The understanding half of a Janus network.

    Args:
        net: transformers' ``JanusForConditionalGeneration``.
        dialogue: How it is asked.
    """

    def __init__(self, net: Any, dialogue: JanusDialogue) -> None:
        self.net, self.dialogue = net, dialogue

    def judge_logit(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> torch.Tensor:
        """Log-odds of "yes" over "no", float32 (B, Q)."""
        tails = [[self.dialogue.question_ids(q) for q in row] for row in questions_BQ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails)
        rows_B1 = torch.arange(len(tails), device=hidden_BSD.device)[:, None]
        logits_BQV = self.net.lm_head(hidden_BSD[rows_B1, ends_BQ]).float()
        return logits_BQV[..., self.dialogue.yes].logsumexp(-1) - logits_BQV[..., self.dialogue.no].logsumexp(-1)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of answers (B, Q, T) and where they have tokens."""
        replies = [[self.dialogue.answer_ids(answer) for answer in row] for row in answers_BQ]
        tails = [
            [self.dialogue.question_ids(q) + reply for q, reply in zip(qs, rs, strict=True)]
            for qs, rs in zip(questions_BQ, replies, strict=True)
        ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails)
        length_BQ = torch.tensor([[len(reply) for reply in row] for row in replies], device=hidden_BSD.device)
        offset_T = torch.arange(int(length_BQ.max()), device=hidden_BSD.device)
        mask_BQT = offset_T < length_BQ[..., None]
        at_BQT = torch.where(mask_BQT, ends_BQ[..., None] - length_BQ[..., None] + offset_T, 0)
        rows_B11 = torch.arange(len(tails), device=hidden_BSD.device)[:, None, None]
        target_BQT = torch.zeros_like(at_BQT)
        target_BQT[mask_BQT] = torch.tensor(list(itertools.chain(*itertools.chain(*replies))), device=at_BQT.device)
        logits = self.net.lm_head(hidden_BSD[rows_B11, at_BQT]).float()
        logp_BQT = logits.log_softmax(-1).gather(-1, target_BQT[..., None])[..., 0]
        return logp_BQT.masked_fill(~mask_BQT, 0), mask_BQT

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the trunk once over [image prefix | tail 1 | tail 2 ...], each tail blind to the others.

        Returns:
            Hidden states (B, S, D) and the position of each tail's last token (B, Q).
        """
        prefix = self.dialogue.image_prefix
        packed = [list(itertools.chain(prefix, *row)) for row in tails_BQ]
        size = max(map(len, packed))
        pad = self.dialogue.tokenizer.pad_token_id
        ids_BS = torch.tensor([row + [pad] * (size - len(row)) for row in packed], device=self._device)
        embeds_BSD = self._with_image(ids_BS, pixels_BCHW)
        end_BQ = torch.tensor([list(itertools.accumulate(map(len, row))) for row in tails_BQ], device=self._device)
        end_BQ += len(prefix) - 1
        llm = self.net.model.language_model
        if end_BQ.shape[1] == 1:
            # nothing to keep apart, and the padding lies behind
            return run_trunk(llm, embeds_BSD).last_hidden_state, end_BQ
        segment, place = [], []
        for row in tails_BQ:
            lengths = [len(tail) for tail in row]
            fill = size - len(prefix) - sum(lengths)
            segment.append([0] * len(prefix) + [i for i, k in enumerate(lengths, 1) for _ in range(k)] + [-1] * fill)
            place.append([*range(len(prefix)), *(len(prefix) + j for k in lengths for j in range(k)), *[0] * fill])
        segment_BS = torch.tensor(segment, device=self._device)
        same_BSS = segment_BS[:, :, None] == segment_BS[:, None, :]
        allowed_BSS = (same_BSS | (segment_BS == 0)[:, None, :]).tril()
        place_BS = torch.tensor(place, device=self._device)
        bias_B1SS = additive(allowed_BSS[:, None], embeds_BSD.dtype)
        return run_trunk(llm, embeds_BSD, bias_B1SS, place_BS).last_hidden_state, end_BQ

    def _with_image(self, ids_BS: torch.Tensor, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        images = self.dialogue.processor.image_processor
        side = (images.size["height"], images.size["width"])
        pixels = pixels_BCHW.to(self._device)
        if pixels.shape[-2:] != side:
            pixels = F.interpolate(pixels, side, mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (images.image_mean, images.image_std))
        normalised = ((pixels + 1) / 2 - mean) / std
        features = self.net.model.get_image_features(normalised.to(self.net.dtype)).pooler_output
        embeds_BSD = self.net.model.language_model.embed_tokens(ids_BS)
        where = (ids_BS == self.net.config.image_token_id)[..., None]
        return embeds_BSD.masked_scatter(where, features.to(embeds_BSD.dtype))

    @property
    def _device(self) -> torch.device:
        return self.net.model.language_model.embed_tokens.weight.device
