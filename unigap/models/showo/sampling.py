"""Sample images with Show-o: all tokens start masked, and each step fixes the most confident ones."""

from __future__ import annotations

import torch

from unigap.console import tasks
from unigap.models.base import PromptBatch, Samples, SamplingRecipe
from unigap.models.engine.attention import additive, causal, positions, run_trunk
from unigap.models.engine.autoregressive import LOGITS_AT_ONCE, invert_cdf, uniforms
from unigap.models.engine.finite import check_finite
from unigap.models.engine.prompt_cache import PromptCache
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.likelihood import UnmaskingPath
from unigap.models.showo.masks import choice_temperatures, unmasking_schedule
from unigap.models.showo.network import ShowONetwork

# Shape legend: B prompts, N candidates a prompt, P prefilled prompts (B, or 2B with guidance: null prompts second),
# R rows of candidates, G rows of a pass (R, or 2R with guidance), L prompt tokens, I tokens of an image with start and
# end, M image tokens, T steps, K tokens of some rows, V codes, D hidden width.

Proposal = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Codes, their log-probabilities at temperature 1 without guidance, and with guidance (the confidence)."""


class ShowOSampler:
    """Generation branch of Show-o.

    Args:
        net: The network, in eval mode.
        template: Token ids of prompts.
        steps: Maximum number of unmasking steps.
        choice_temperature: Initial scale of the noise on the order of unmasking, >= 0.
    """

    def __init__(self, net: ShowONetwork, template: ShowOChatTemplate, steps: int, choice_temperature: float) -> None:
        self.net, self.template = net, template
        self.masked_counts = unmasking_schedule(net.shape.image_tokens, steps)
        self.noise_scales = choice_temperatures(choice_temperature, len(self.masked_counts))

    @torch.no_grad()
    def sample(
        self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe
    ) -> tuple[Samples, UnmaskingPath]:
        """Sample N images per prompt, and return the order in which they were unmasked."""
        image_pass = ImagePass(self.net, self.template, prompt, seeds_BN.shape[1], recipe.cfg != 1)
        device, (rows, length) = prompt.ids_BL.device, (seeds_BN.numel(), self.net.shape.image_tokens)
        noise = uniforms(seeds_BN.flatten(), 2 * len(self.masked_counts) * length).to(device)
        noise_T2RM = noise.view(rows, len(self.masked_counts), 2, length).permute(1, 2, 0, 3)
        codes_RM = torch.zeros(rows, length, dtype=torch.int64, device=device)
        logp_RM = torch.zeros(rows, length, device=device)
        step_RM = torch.full_like(codes_RM, len(self.masked_counts))
        for step, (stay_masked, noise_scale) in enumerate(zip(self.masked_counts, self.noise_scales, strict=True)):
            masked_RM = step_RM == len(self.masked_counts)
            hidden_GMD = image_pass(codes_RM, masked_RM)
            if step == 0:
                check_finite(torch.isfinite(hidden_GMD), "hidden states")
            code_RM, proposed_logp_RM, confidence_RM = self._propose(hidden_GMD, noise_T2RM[step, 0], recipe)
            noise_scale = noise_scale if recipe.temperature else 0.0
            fixed_RM = most_confident(confidence_RM, masked_RM, stay_masked, noise_scale, noise_T2RM[step, 1])
            codes_RM = torch.where(fixed_RM, code_RM, codes_RM)
            logp_RM = torch.where(fixed_RM, proposed_logp_RM, logp_RM)
            step_RM = step_RM.masked_fill(fixed_RM, step)
            tasks.report(step + 1, len(self.masked_counts))
        check_finite(~logp_RM.isnan(), "logits")
        shape = (*seeds_BN.shape, length)
        return Samples(codes_RM.view(shape), logp_RM.view(shape)), UnmaskingPath(codes_RM, step_RM)

    def _propose(self, hidden_GMD: torch.Tensor, uniform_RM: torch.Tensor, recipe: SamplingRecipe) -> Proposal:
        """Sample a code for every token, under guidance."""
        part = max(1, LOGITS_AT_ONCE // self.net.shape.n_codes)
        halves_KD = torch.split(hidden_GMD.flatten(0, 1), uniform_RM.numel())
        split_tensors = (torch.split(tensor, part) for tensor in (*halves_KD, uniform_RM.flatten()))
        parts = [
            self._propose_part([self.net.code_logits(half).float() for half in halves], uniform_K, recipe)
            for *halves, uniform_K in zip(*split_tensors, strict=True)
        ]
        codes, logps, confidences = (torch.cat(pieces).view_as(uniform_RM) for pieces in zip(*parts, strict=True))
        return codes, logps, confidences

    def _propose_part(self, logits: list[torch.Tensor], uniform_K: torch.Tensor, recipe: SamplingRecipe) -> Proposal:
        cond_KV = logits[0]
        # Show-o writes (1 + w) c - w u, which is u + cfg (c - u) with cfg = w + 1
        guided_KV = cond_KV if recipe.cfg == 1 else torch.lerp(logits[1], cond_KV, recipe.cfg)
        code_K = invert_cdf(guided_KV, uniform_K, recipe)
        logp_K, confidence_K = (
            logits_KV.log_softmax(-1).gather(-1, code_K[:, None])[:, 0] for logits_KV in (cond_KV, guided_KV)
        )
        return code_K, logp_K, confidence_K


class ImagePass:
    """Forward pass over partly masked images, repeated at every step, with the prompts prefilled once.

    Args:
        net: The network.
        template: Token ids of prompts.
        prompt: B prompts.
        n: N, the number of images per prompt.
        guided: Whether each image also runs with its null prompt.
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
        self.prompts = PromptCache(out.past_key_values, row_G)
        size = net.shape.image_tokens + 2
        allowed_PS = torch.cat([text_PL, text_PL.new_ones(len(ids_PL), size)], 1)
        self.bias_G1IS = additive(allowed_PS[row_G, None, None], embeds_PLD.dtype).expand(-1, -1, size, -1)
        self.position_GI = (text_PL.sum(1, keepdim=True) + torch.arange(size, device=ids_PL.device))[row_G]

    def __call__(self, codes_RM: torch.Tensor, masked_RM: torch.Tensor) -> torch.Tensor:
        """Return hidden states (G, M, D); each predicts the token at its position."""
        image_RI = self.net.image_ids(codes_RM, masked_RM, self.marks)
        out = self.net.llm.model(
            inputs_embeds=self.net.embed(image_RI).repeat(self.halves, 1, 1),
            attention_mask=self.bias_G1IS,
            position_ids=self.position_GI,
            past_key_values=self.prompts,
            use_cache=True,
        )
        return out.last_hidden_state[:, 1:-1]


def most_confident(
    confidence_RM: torch.Tensor, masked_RM: torch.Tensor, stay_masked: int, noise_scale: float, uniform_RM: torch.Tensor
) -> torch.Tensor:
    """Return the masked tokens to fix, bool (R, M), so that ``stay_masked`` tokens stay masked.

    Args:
        confidence_RM: Log-probability of the proposed code of each token.
        masked_RM: Whether a token is still masked; the others stay fixed.
        stay_masked: Number of tokens that stay masked.
        noise_scale: Scale of the Gumbel noise on the confidence; 0 takes the most confident, ties from left to right.
        uniform_RM: One number in [0, 1) per token, for the noise.
    """
    score_RM = confidence_RM.double()
    if noise_scale:
        score_RM = score_RM - noise_scale * (-uniform_RM.clamp(min=1e-300).log()).log()
    score_RM = score_RM.masked_fill(~masked_RM, torch.inf)
    rank_RM = score_RM.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
    return (rank_RM < score_RM.shape[1] - stay_masked) & masked_RM
