"""Sample images with Janus: prefill each prompt once, then decode its candidates in parallel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import Sampled, Step, sample_codes, sample_next, samples_of, uniforms
from unigap.models.engine.static_decoding import (
    DecodingCache,
    captured_in_parts,
    guards_checked_once,
    padded_length,
    padded_rows,
    step_trunk,
)

# Shape legend: B prompts, N candidates a prompt, P prefilled prompts (B, or 2B with guidance: null prompts second),
# L prompt tokens, M image tokens, V codes, R rows of candidates, G decoded rows (R, or 2R with guidance).


class JanusSampler:
    """Generation branch of Janus.

    Args:
        net: transformers' ``JanusForConditionalGeneration``, in eval mode.
        length: Number of codes of one image.
        compile: Compile the step on a CPU, or capture it as a CUDA graph on a GPU.
    """

    def __init__(self, net: Any, length: int, compile: bool) -> None:
        self.net, self.length, self.compile = net, length, compile

    @torch.no_grad()
    def sample(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt."""
        batch, n = seeds_BN.shape
        guided = recipe.cfg != 1
        ids_PL, mask_PL = prompt.to_prefill(guided)
        samples = rows = batch * n
        extra_slots = self.length - 1
        if self.compile and ids_PL.device.type == "cpu":
            rows = padded_rows(samples)
            extra_slots += padded_length(ids_PL.shape[1]) - ids_PL.shape[1]
        row_R = F.pad(torch.arange(batch, device=ids_PL.device).repeat_interleave(n), (0, rows - samples))
        row_G = torch.cat([row_R, row_R + batch]) if guided else row_R
        uniform_RM = uniforms(seeds_BN.flatten(), self.length).to(ids_PL.device)
        uniform_RM = F.pad(uniform_RM, (0, 0, 0, rows - samples))

        llm = self.net.model.language_model
        embeds_PLD = llm.embed_tokens(ids_PL)
        bias_P1LL = additive(causal(mask_PL), embeds_PLD.dtype)
        out = run_trunk(llm, embeds_PLD, bias_P1LL, positions(mask_PL), use_cache=True)
        first_GV = self.net.model.generation_head(out.last_hidden_state[:, -1])[row_G]
        in_graph = self.compile and ids_PL.device.type != "cpu"
        cache = DecodingCache(llm.rotary_emb, out.past_key_values, mask_PL, row_G, extra_slots, fixed=in_graph)
        with contextlib.ExitStack() as during_sampling:
            step: Step = partial(self._masked_next, cache, recipe)
            if in_graph:
                step = captured_in_parts(step, cache, row_R, uniform_RM[:, 0])
            elif self.compile:
                step = during_sampling.enter_context(
                    guards_checked_once(partial(self._compiled_next, cache, recipe), cache)
                )
            sampled = sample_codes(first_GV, step, uniform_RM, recipe)
        return samples_of(sampled, batch, n)

    @cached_property
    def _compiled_next(self) -> Callable[..., Sampled]:
        # a C++ wrapper, because launching the kernels from Python costs a fifth of a small step
        return torch.compile(self._next, options={"cpp_wrapper": True})

    def _masked_next(
        self, cache: DecodingCache, recipe: SamplingRecipe, code_R: torch.Tensor, uniform_R: torch.Tensor
    ) -> Sampled:
        return self._next(cache, recipe, cache.next_bias(), code_R, uniform_R)

    def _next(
        self,
        cache: DecodingCache,
        recipe: SamplingRecipe,
        bias: torch.Tensor,
        code_R: torch.Tensor,
        uniform_R: torch.Tensor,
    ) -> Sampled:
        embeds_R1D = self.net.prepare_embeddings_for_image_generation(code_R[:, None])
        embeds_G1D = embeds_R1D.repeat(cache.rows // len(code_R), 1, 1)
        hidden_GD = step_trunk(self.net.model.language_model, embeds_G1D, cache, bias)
        return sample_next(self.net.model.generation_head(hidden_GD), uniform_R, recipe)
