"""Drawing with a Janus: each prompt is read once, its candidates are decoded side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import Drawn, Step, choose, draw, uniforms
from unigap.models.engine.static_decoding import (
    StepBuffers,
    captured,
    checked_once,
    shared_length,
    shared_rows,
    step_trunk,
)

# Shape legend: B prompts, N candidates a prompt, P prompts that are read (2B where guided: the null prompts second),
# L prompt tokens, M image tokens, V codes, R rows of candidates, G rows that are decoded (R, or 2R where guided).


class JanusSampler:
    """The drawing half of a Janus network.

    Args:
        net: transformers' ``JanusForConditionalGeneration``; it is in eval mode while it draws.
        length: Codes of one image.
        compile: Compile the step on a CPU, or capture it as a CUDA graph on a GPU.
    """

    def __init__(self, net: Any, length: int, compile: bool) -> None:
        self.net, self.length, self.compile = net, length, compile

    @torch.no_grad()
    def sample(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Draws N images for each prompt."""
        batch, n = seeds_BN.shape
        guided = recipe.cfg != 1
        ids_PL, mask_PL = prompt.to_prefill(guided)
        drawn = rows = batch * n
        room = self.length - 1
        if self.compile and ids_PL.device.type == "cpu":
            rows, room = shared_rows(drawn), room + shared_length(ids_PL.shape[1]) - ids_PL.shape[1]
        row_R = F.pad(torch.arange(batch, device=ids_PL.device).repeat_interleave(n), (0, rows - drawn))
        row_G = torch.cat([row_R, row_R + batch]) if guided else row_R
        uniform_RM = uniforms(seeds_BN.flatten(), self.length).to(ids_PL.device)
        uniform_RM = F.pad(uniform_RM, (0, 0, 0, rows - drawn))

        llm = self.net.model.language_model
        embeds_PLD = llm.embed_tokens(ids_PL)
        bias_P1LL = additive(causal(mask_PL), embeds_PLD.dtype)
        out = run_trunk(llm, embeds_PLD, bias_P1LL, positions(mask_PL), use_cache=True)
        first_GV = self.net.model.generation_head(out.last_hidden_state[:, -1])[row_G]
        in_graph = self.compile and ids_PL.device.type != "cpu"
        buffers = StepBuffers(llm.rotary_emb, out.past_key_values, mask_PL, row_G, room, fixed=in_graph)
        with contextlib.ExitStack() as meanwhile:
            step: Step = partial(self._open_next, buffers, recipe)
            if in_graph:
                step = captured(step, buffers, row_R, uniform_RM[:, 0])
            elif self.compile:
                step = meanwhile.enter_context(checked_once(partial(self._compiled_next, buffers, recipe), buffers))
            codes_RM, logp_RM = draw(first_GV, step, uniform_RM, recipe)
        shape = (batch, n, self.length)
        return Samples(codes_RM[:drawn].view(shape), logp_RM[:drawn].view(shape))

    @cached_property
    def _compiled_next(self) -> Callable[..., Drawn]:
        # a C++ wrapper: calling the kernels one by one from Python costs a fifth of a small step
        return torch.compile(self._next, options={"cpp_wrapper": True})

    def _open_next(
        self, buffers: StepBuffers, recipe: SamplingRecipe, code_R: torch.Tensor, uniform_R: torch.Tensor
    ) -> Drawn:
        return self._next(buffers, recipe, buffers.open(), code_R, uniform_R)

    def _next(
        self,
        buffers: StepBuffers,
        recipe: SamplingRecipe,
        bias: torch.Tensor,
        code_R: torch.Tensor,
        uniform_R: torch.Tensor,
    ) -> Drawn:
        embeds_R1D = self.net.prepare_embeddings_for_image_generation(code_R[:, None])
        embeds_G1D = embeds_R1D.repeat(buffers.rows // len(code_R), 1, 1)
        hidden_GD = step_trunk(self.net.model.language_model, embeds_G1D, buffers, bias)
        return choose(self.net.model.generation_head(hidden_GD), uniform_R, recipe)
