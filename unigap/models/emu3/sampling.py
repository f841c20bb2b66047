"""Drawing with an Emu3: each prompt is read once, its candidates are written side by side, line by line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import Drawn, choose, draw, uniforms
from unigap.models.engine.static_decoding import StepBuffers, step_trunk

# Shape legend: B prompts, N candidates a prompt, P prompts that are read (2B where guided: the null prompts second),
# L prompt tokens, M image codes of one, V codes, D hidden width, R rows of candidates, G rows that are decoded (R, or
# 2R where guided).


class Emu3Sampler:
    """The drawing half of an Emu3.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``; it is in eval mode while it draws.
        words: How it writes images.
    """

    def __init__(self, net: Any, words: ImageTokens) -> None:
        self.net, self.words = net, words

    @torch.no_grad()
    def sample(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Draws N images for each prompt."""
        batch, n = seeds_BN.shape
        guided = recipe.cfg != 1
        ids_PL, text_PL = prompt.to_prefill(guided)
        row_R = torch.arange(batch, device=ids_PL.device).repeat_interleave(n)
        row_G = torch.cat([row_R, row_R + batch]) if guided else row_R
        uniform_RM = uniforms(seeds_BN.flatten(), len(self.words.place_M)).to(ids_PL.device)

        llm = self.net.model.text_model
        embeds_PLD = llm.embed_tokens(ids_PL)
        bias_P1LL = additive(causal(text_PL), embeds_PLD.dtype)
        out = run_trunk(llm, embeds_PLD, bias_P1LL, positions(text_PL), use_cache=True)
        first_GV = self.words.code_logits(self.net.lm_head, out.last_hidden_state[:, -1])[row_G]
        # the last code is not read, and the end of its line is neither
        room = self.words.written_length - 2
        buffers = StepBuffers(llm.rotary_emb, out.past_key_values, text_PL, row_G, room, fixed=False)
        step = partial(self._next, buffers, recipe, itertools.count(1))
        codes_RM, logp_RM = draw(first_GV, step, uniform_RM, recipe)
        shape = (batch, n, -1)
        return Samples(codes_RM.view(shape), logp_RM.view(shape))

    def _next(
        self,
        buffers: StepBuffers,
        recipe: SamplingRecipe,
        drawn: Iterator[int],
        code_R: torch.Tensor,
        uniform_R: torch.Tensor,
    ) -> Drawn:
        hidden_GD = self._read(buffers, self.words.ids_V[code_R])
        if next(drawn) % self.words.columns == 0:
            # what ends a line is no choice of the model's
            hidden_GD = self._read(buffers, torch.full_like(code_R, self.words.line_end))
        return choose(self.words.code_logits(self.net.lm_head, hidden_GD), uniform_R, recipe)

    def _read(self, buffers: StepBuffers, id_R: torch.Tensor) -> torch.Tensor:
        llm = self.net.model.text_model
        id_G1 = id_R.repeat(buffers.rows // len(id_R))[:, None]
        return step_trunk(llm, llm.embed_tokens(id_G1), buffers, buffers.open())
