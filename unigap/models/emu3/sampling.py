"""Sample images with Emu3: prefill each prompt once, then decode its candidates in parallel, line by line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import Sampled, sample_codes, sample_next, samples_of, uniforms
from unigap.models.engine.static_decoding import DecodingCache, step_trunk

# Shape legend: B prompts, N candidates a prompt, P prefilled prompts (B, or 2B with guidance: null prompts second),
# L prompt tokens, M codes of an image, V codes, D hidden width, R rows of candidates, G decoded rows (R, or 2R with
# guidance).


class Emu3Sampler:
    """Generation branch of Emu3.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``, in eval mode.
        layout: Token ids and line layout of an image.
    """

    def __init__(self, net: Any, layout: ImageTokens) -> None:
        self.net, self.layout = net, layout

    @torch.no_grad()
    def sample(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt."""
        batch, n = seeds_BN.shape
        guided = recipe.cfg != 1
        ids_PL, mask_PL = prompt.to_prefill(guided)
        row_R = torch.arange(batch, device=ids_PL.device).repeat_interleave(n)
        row_G = torch.cat([row_R, row_R + batch]) if guided else row_R
        uniform_RM = uniforms(seeds_BN.flatten(), len(self.layout.position_M)).to(ids_PL.device)

        llm = self.net.model.text_model
        embeds_PLD = llm.embed_tokens(ids_PL)
        bias_P1LL = additive(causal(mask_PL), embeds_PLD.dtype)
        out = run_trunk(llm, embeds_PLD, bias_P1LL, positions(mask_PL), use_cache=True)
        first_GV = self.layout.code_logits(self.net.lm_head, out.last_hidden_state[:, -1])[row_G]
        # the last code and its end-of-line token are no input
        extra_slots = self.layout.length - 2
        cache = DecodingCache(llm.rotary_emb, out.past_key_values, mask_PL, row_G, extra_slots, fixed=False)
        step = partial(self._next, cache, recipe, itertools.count(1))
        sampled = sample_codes(first_GV, step, uniform_RM, recipe)
        return samples_of(sampled, batch, n)

    def _next(
        self,
        cache: DecodingCache,
        recipe: SamplingRecipe,
        codes_sampled: Iterator[int],
        code_R: torch.Tensor,
        uniform_R: torch.Tensor,
    ) -> Sampled:
        hidden_GD = self._decode(cache, self.layout.ids_V[code_R])
        if next(codes_sampled) % self.layout.columns == 0:
            # the end of a line is forced
            hidden_GD = self._decode(cache, torch.full_like(code_R, self.layout.line_end))
        return sample_next(self.layout.code_logits(self.net.lm_head, hidden_GD), uniform_R, recipe)

    def _decode(self, cache: DecodingCache, id_R: torch.Tensor) -> torch.Tensor:
        llm = self.net.model.text_model
        id_G1 = id_R.repeat(cache.rows // len(id_R))[:, None]
        return step_trunk(llm, llm.embed_tokens(id_G1), cache, cache.next_bias())
