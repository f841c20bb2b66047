"""Drawing image tokens one after another: guidance, filtering and inverse-CDF sampling with a seed per image."""

from __future__ import annotations

from collections.abc import Callable

import torch

from unigap.models.base import Samples, SamplingRecipe

# Shape legend: B prompts, N candidates a prompt, M image tokens, V image codes, R = B * N rows.


def uniforms(seeds_R: torch.Tensor, length: int) -> torch.Tensor:
    """One stream of uniform numbers in [0, 1) for each seed, float64 (R, length), the same on every device."""
    generator = torch.Generator()
    rows = [torch.rand(length, dtype=torch.float64, generator=generator.manual_seed(seed)) for seed in seeds_R.tolist()]
    return torch.stack(rows)


def next_codes(logits_RV: torch.Tensor, uniform_R: torch.Tensor, recipe: SamplingRecipe) -> torch.Tensor:
    """Draws one code a row by inverting the cumulative distribution at ``uniform_R``; int64 (R,)."""
    if recipe.temperature == 0:
        return logits_RV.argmax(-1)
    logits_RV = logits_RV.double()
    # the largest becomes 0 first, so that no temperature, however small, makes it overflow
    logits_RV = (logits_RV - logits_RV.max(-1, keepdim=True).values) / recipe.temperature
    if 0 < recipe.top_k < logits_RV.shape[-1]:
        weakest_R1 = logits_RV.topk(recipe.top_k, -1).values[:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < weakest_R1, -torch.inf)
    probs_RV = logits_RV.softmax(-1)
    if recipe.top_p < 1:
        sorted_RV, order_RV = probs_RV.sort(-1, descending=True)
        outside_RV = sorted_RV.cumsum(-1) - sorted_RV >= recipe.top_p
        probs_RV = probs_RV.masked_fill(outside_RV.gather(-1, order_RV.argsort(-1)), 0)
    cdf_RV = probs_RV.cumsum(-1)
    # scaling by the last entry keeps the draw below it, so that a filtered tail is never reached by rounding
    return torch.searchsorted(cdf_RV, (uniform_R * cdf_RV[:, -1])[:, None], right=True)[:, 0]


def draw(
    prefill: Callable[[], torch.Tensor],
    step: Callable[[torch.Tensor], torch.Tensor],
    seeds_BN: torch.Tensor,
    length: int,
    recipe: SamplingRecipe,
) -> Samples:
    """Draws ``length`` codes for each row.

    Args:
        prefill: Gives the logits of the first code, (R, V), or (2R, V) with the unconditional rows second where the
            recipe guides.
        step: Takes the codes just drawn, (R,), and gives the next logits, shaped as ``prefill``'s.
        seeds_BN: One seed an image, int64.
        length: M.
        recipe: Temperature, guidance and filters.

    Raises:
        ValueError: When the first logits are not finite.
    """
    rows = seeds_BN.numel()
    logits = prefill()
    if not torch.isfinite(logits).all():
        raise ValueError("the model's logits are not finite: its weights are damaged or diverged; use an earlier one")
    uniform_RM = uniforms(seeds_BN.flatten(), length).to(logits.device)
    codes, logps = [], []
    for position in range(length):
        cond_RV = logits[:rows].float()
        guided_RV = cond_RV if recipe.cfg == 1 else torch.lerp(logits[rows:].float(), cond_RV, recipe.cfg)
        code_R = next_codes(guided_RV, uniform_RM[:, position], recipe)
        codes.append(code_R)
        logps.append(cond_RV.log_softmax(-1).gather(-1, code_R[:, None])[:, 0])
        if position + 1 < length:
            logits = step(code_R)
    shape = (*seeds_BN.shape, length)
    return Samples(torch.stack(codes, -1).view(shape), torch.stack(logps, -1).view(shape))
