"""Drawing with a Janus: each prompt is read once, its candidates are decoded side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch.nn import functional as F

from unigap.models.attention import causal, positions, run_trunk
from unigap.models.autoregressive import draw
from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.static_decoding import ROWS, SLOTS, StepBuffers, bucket, captured, step_trunk

# Shape legend: B prompts, N candidates a prompt, P prompts that are read (2B where guided: the null prompts second),
# L prompt tokens, V codes, R rows of candidates, G rows that are decoded (R, or 2R where guided).


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
        ids_PL = torch.cat([prompt.ids_BL, prompt.uncond_BL]) if guided else prompt.ids_BL
        mask_PL = prompt.mask_BL.repeat(2, 1) if guided else prompt.mask_BL
        drawn = rows = batch * n
        if self.compile and ids_PL.device.type == "cpu":
            rows, left = bucket(drawn, ROWS), bucket(ids_PL.shape[1], SLOTS) - ids_PL.shape[1]
            ids_PL, mask_PL = F.pad(ids_PL, (left, 0)), F.pad(mask_PL, (left, 0))
        row_R = F.pad(torch.arange(batch, device=ids_PL.device).repeat_interleave(n), (0, rows - drawn))
        row_G = torch.cat([row_R, row_R + batch]) if guided else row_R

        def without_fill(logits_GV: torch.Tensor) -> torch.Tensor:
            return logits_GV.unflatten(0, (-1, rows))[:, :drawn].flatten(0, 1)

        llm = self.net.model.language_model
        out = run_trunk(llm, llm.embed_tokens(ids_PL), causal(mask_PL), positions(mask_PL), use_cache=True)
        first_GV = self.net.model.generation_head(out.last_hidden_state[:, -1])[row_G]
        step = self._step_over(StepBuffers(out.past_key_values, mask_PL, row_G, self.length - 1), rows)
        return draw(
            without_fill(first_GV),
            lambda code_R: without_fill(step(F.pad(code_R, (0, rows - drawn)))),
            seeds_BN,
            self.length,
            recipe,
        )

    def _step_over(self, buffers: StepBuffers, rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
        if not self.compile:
            return partial(self._logits, buffers)
        if buffers.slot_1.device.type == "cpu":
            return partial(self._compiled_logits, buffers)
        return captured(partial(self._logits, buffers), buffers, rows)

    @cached_property
    def _compiled_logits(self) -> Callable[..., torch.Tensor]:
        return torch.compile(self._logits, dynamic=False)

    def _logits(self, buffers: StepBuffers, code_R: torch.Tensor) -> torch.Tensor:
        embeds_R1D = self.net.prepare_embeddings_for_image_generation(code_R[:, None])
        embeds_G1D = embeds_R1D.repeat(len(buffers.position_R1) // len(code_R), 1, 1)
        return self.net.model.generation_head(step_trunk(self.net.model.language_model, embeds_G1D, buffers))
