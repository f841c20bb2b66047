"""Drawing with a Show-o: all tokens start masked, and each step fixes those the model is surest of."""

from __future__ import annotations

from typing import Any

import torch

from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import LOGITS_AT_ONCE, next_codes, uniforms
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.likelihood import UnmaskingPath
from unigap.models.showo.masks import choice_temperatures, unmasking_schedule
from unigap.models.showo.network import ShowONetwork

# Shape legend: B prompts, N candidates a prompt, P prompts that are read (2B where guided: the null prompts second),
# R rows of candidates, G rows that are looked at (R, or 2R where guided), L prompt tokens, I tokens of an image with
# its marks, M image tokens, T steps, K places of some rows, V codes, D hidden width.

Proposed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Codes, their log-probabilities at temperature 1 without guidance, and the same with it: how sure one is of them."""


class ReadPrompts:
    """Keys and values of prompts, for rows of images that see them and leave nothing behind.

    transformers' attention layers take it as their ``past_key_values``.

    Args:
        cache: transformers' cache after the prompts.
        row_G: The prompt of each row.
    """

    def __init__(self, cache: Any, row_G: torch.Tensor) -> None:
        self.layers = [(layer.keys[row_G], layer.values[row_G]) for layer in cache.layers]

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values, those of the prompts first."""
        known, told = self.layers[layer]
        return torch.cat([known, keys], 2), torch.cat([told, values], 2)


class ShowOSampler:
    """The drawing half of a Show-o.

    Args:
        net: The network; it is in eval mode while it draws.
        template: How it is told what to draw.
        steps: Most steps of unmasking.
        choice_temperature: How much noise stirs the order of unmasking at first, >= 0.
    """

    def __init__(self, net: ShowONetwork, template: ShowOChatTemplate, steps: int, choice_temperature: float) -> None:
        self.net, self.template = net, template
        self.left = unmasking_schedule(net.shape.image_tokens, steps)
        self.heats = choice_temperatures(choice_temperature, len(self.left))

    @torch.no_grad()
    def sample(
        self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe
    ) -> tuple[Samples, UnmaskingPath]:
        """Draws N images for each prompt, and says how they were unmasked."""
        look = Look(self.net, self.template, prompt, seeds_BN.shape[1], recipe.cfg != 1)
        device, (rows, length) = prompt.ids_BL.device, (seeds_BN.numel(), self.net.shape.image_tokens)
        noise = uniforms(seeds_BN.flatten(), 2 * len(self.left) * length).to(device)
        noise_T2RM = noise.view(rows, len(self.left), 2, length).permute(1, 2, 0, 3)
        codes_RM = torch.zeros(rows, length, dtype=torch.int64, device=device)
        logp_RM = torch.zeros(rows, length, device=device)
        step_RM = torch.full_like(codes_RM, len(self.left))
        for step, (left, heat) in enumerate(zip(self.left, self.heats, strict=True)):
            masked_RM = step_RM == len(self.left)
            hidden_GMD = look(codes_RM, masked_RM)
            if step == 0 and not torch.isfinite(hidden_GMD).all():
                raise ValueError(
                    "the model's hidden states are not finite: its weights are damaged or diverged; use an earlier one"
                )
            code_RM, alone_RM, sure_RM = self._propose(hidden_GMD, noise_T2RM[step, 0], recipe)
            heat = heat if recipe.temperature else 0.0
            now_RM = surest(sure_RM, masked_RM, left, heat, noise_T2RM[step, 1])
            codes_RM, logp_RM = torch.where(now_RM, code_RM, codes_RM), torch.where(now_RM, alone_RM, logp_RM)
            step_RM = step_RM.masked_fill(now_RM, step)
        shape = (*seeds_BN.shape, length)
        return Samples(codes_RM.view(shape), logp_RM.view(shape)), UnmaskingPath(codes_RM, step_RM)

    def _propose(self, hidden_GMD: torch.Tensor, uniform_RM: torch.Tensor, recipe: SamplingRecipe) -> Proposed:
        """A code for every place, drawn under guidance."""
        part = max(1, LOGITS_AT_ONCE // self.net.shape.n_codes)
        halves_KD = torch.split(hidden_GMD.flatten(0, 1), uniform_RM.numel())
        pieces = (torch.split(tensor, part) for tensor in (*halves_KD, uniform_RM.flatten()))
        parts = [
            self._propose_part([self.net.code_logits(half).float() for half in halves], uniform_K, recipe)
            for *halves, uniform_K in zip(*pieces, strict=True)
        ]
        codes, alone, sure = (torch.cat(found).view_as(uniform_RM) for found in zip(*parts, strict=True))
        return codes, alone, sure

    def _propose_part(self, logits: list[torch.Tensor], uniform_K: torch.Tensor, recipe: SamplingRecipe) -> Proposed:
        alone_KV = logits[0]
        # Show-o writes (1 + w) c - w u, which is u + cfg (c - u) with cfg = w + 1
        guided_KV = alone_KV if recipe.cfg == 1 else torch.lerp(logits[1], alone_KV, recipe.cfg)
        code_K = next_codes(guided_KV, uniform_K, recipe)
        alone_K, sure_K = (
            logits_KV.log_softmax(-1).gather(-1, code_K[:, None])[:, 0] for logits_KV in (alone_KV, guided_KV)
        )
        return code_K, alone_K, sure_K


class Look:
    """Looks at images that are being drawn, again and again, behind prompts that are read once.

    Args:
        net: The network.
        template: How it is told what to draw.
        prompt: B prompts.
        n: N images of each.
        guided: Whether each image is looked at behind its null prompt too.
    """

    def __init__(
        self, net: ShowONetwork, template: ShowOChatTemplate, prompt: PromptBatch, n: int, guided: bool
    ) -> None:
        self.net, self.marks, self.halves = net, (template.image_start, template.image_end), 1 + guided
        ids_PL, mask_PL = prompt.to_prefill(guided)
        text_PL = mask_PL.bool()
        embeds_PLD = net.embed(ids_PL)
        bias_P1LL = additive(causal(text_PL), embeds_PLD.dtype)
        out = run_trunk(net.llm.model, embeds_PLD, bias_P1LL, positions(text_PL), use_cache=True)
        row_G = torch.arange(len(ids_PL), device=ids_PL.device).repeat_interleave(n)
        self.prompts = ReadPrompts(out.past_key_values, row_G)
        size = net.shape.image_tokens + 2
        seen_PS = torch.cat([text_PL, text_PL.new_ones(len(ids_PL), size)], 1)
        self.bias_G1IS = additive(seen_PS[row_G, None, None], embeds_PLD.dtype).expand(-1, -1, size, -1)
        self.place_GI = (text_PL.sum(1, keepdim=True) + torch.arange(size, device=ids_PL.device))[row_G]

    def __call__(self, codes_RM: torch.Tensor, masked_RM: torch.Tensor) -> torch.Tensor:
        """Hidden states (G, M, D): the one at a place predicts that place."""
        image_RI = self.net.image_ids(codes_RM, masked_RM, self.marks)
        out = self.net.llm.model(
            inputs_embeds=self.net.embed(image_RI).repeat(self.halves, 1, 1),
            attention_mask=self.bias_G1IS,
            position_ids=self.place_GI,
            past_key_values=self.prompts,
            use_cache=True,
        )
        return out.last_hidden_state[:, 1:-1]


def surest(
    sure_RM: torch.Tensor, masked_RM: torch.Tensor, left: int, heat: float, uniform_RM: torch.Tensor
) -> torch.Tensor:
    """Which masked tokens to fix, bool (R, M), so that ``left`` stay masked.

    Args:
        sure_RM: Log-probability of what each token would become.
        masked_RM: Whether a token is masked still; the others stay fixed.
        left: How many are to stay masked.
        heat: Scale of the Gumbel noise that stirs the order; 0 takes the surest, from left to right where equal.
        uniform_RM: A number in [0, 1) for each token, for the noise.
    """
    score_RM = sure_RM.double()
    if heat:
        score_RM = score_RM - heat * (-uniform_RM.clamp(min=1e-300).log()).log()
    score_RM = score_RM.masked_fill(~masked_RM, torch.inf)
    rank_RM = score_RM.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
    return (rank_RM < score_RM.shape[1] - left) & masked_RM
