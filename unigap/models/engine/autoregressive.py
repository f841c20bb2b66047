"""Sample image tokens one after another: guidance, filtering and inverse-CDF sampling with one seed per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unigap.console import tasks
from unigap.models.base import SamplingRecipe

# Shape legend: B prompts, N candidates a prompt, M image tokens, V image codes, D hidden width, R = B * N rows,
# G = R rows, or 2R under guidance, K = B * M tokens.

Sampled = tuple[torch.Tensor, torch.Tensor]
"""Codes and their log-probabilities."""
Step = Callable[[torch.Tensor, torch.Tensor], Sampled]
"""From codes (R,) and uniform numbers (R,) to the next codes and their log-probabilities."""
LOGITS_AT_ONCE = 2**24
"""Maximum number of image-code logits in memory at a time: 64 MiB of float32, 1,024 tokens of Janus-Pro."""


def uniforms(seeds_R: torch.Tensor, length: int) -> torch.Tensor:
    """Return one stream of uniform numbers in [0, 1) per seed, float64 (R, length), equal on every device."""
    generator = torch.Generator()
    rows = [torch.rand(length, dtype=torch.float64, generator=generator.manual_seed(seed)) for seed in seeds_R.tolist()]
    return torch.stack(rows)


def invert_cdf(logits_RV: torch.Tensor, uniform_R: torch.Tensor, recipe: SamplingRecipe) -> torch.Tensor:
    """Sample one code per row, int64 (R,), by inverting the cumulative distribution at ``uniform_R``."""
    if recipe.temperature == 0:
        return logits_RV.argmax(-1)
    logits_RV = logits_RV.double()
    # subtract the maximum first, so that a small temperature does not overflow
    logits_RV = (logits_RV - logits_RV.max(-1, keepdim=True).values) / recipe.temperature
    if 0 < recipe.top_k < logits_RV.shape[-1]:
        smallest_R1 = logits_RV.topk(recipe.top_k, -1, sorted=False).values.amin(-1, keepdim=True)
        logits_RV = logits_RV.masked_fill(logits_RV < smallest_R1, -torch.inf)
    probs_RV = logits_RV.softmax(-1)
    if recipe.top_p < 1:
        sorted_RV, order_RV = probs_RV.sort(-1, descending=True)
        outside_RV = cumulative(sorted_RV) - sorted_RV >= recipe.top_p
        probs_RV = probs_RV.masked_fill(outside_RV.gather(-1, order_RV.argsort(-1)), 0)
    cdf_RV = cumulative(probs_RV)
    # scale by the last entry, so that rounding never selects a filtered code
    return torch.searchsorted(cdf_RV, (uniform_R * cdf_RV[:, -1])[:, None], right=True)[:, 0]


def cumulative(values_RV: torch.Tensor) -> torch.Tensor:
    """Return cumulative sums along the last dimension, also where torch refuses ``cumsum`` as not deterministic."""
    if values_RV.is_cuda and torch.are_deterministic_algorithms_enabled():
        return doubling_sums(values_RV)
    return values_RV.cumsum(-1)


def doubling_sums(values_RV: torch.Tensor) -> torch.Tensor:
    """Return cumulative sums by log2(V) additions of shifted copies, in an order that is always the same."""
    shift = 1
    while shift < values_RV.shape[-1]:
        values_RV = values_RV + F.pad(values_RV, (shift, -shift))
        shift *= 2
    return values_RV


def sample_next(logits_GV: torch.Tensor, uniform_R: torch.Tensor, recipe: SamplingRecipe) -> Sampled:
    """Sample one code per row under guidance.

    Args:
        logits_GV: (R, V), or (2R, V) with the unconditional rows second if the recipe uses guidance.
        uniform_R: One number in [0, 1) per row.
        recipe: Temperature, guidance and filters.

    Returns:
        Codes, int64 (R,), and their log-probabilities at temperature 1 without guidance, float32 (R,).
    """
    rows = len(uniform_R)
    cond_RV = logits_GV[:rows].float()
    guided_RV = cond_RV if recipe.cfg == 1 else torch.lerp(logits_GV[rows:].float(), cond_RV, recipe.cfg)
    code_R = invert_cdf(guided_RV, uniform_R, recipe)
    return code_R, cond_RV.log_softmax(-1).gather(-1, code_R[:, None])[:, 0]


def sample_codes(first_GV: torch.Tensor, step: Step, uniform_RM: torch.Tensor, recipe: SamplingRecipe) -> Sampled:
    """Sample M codes per row, the first from ``first_GV`` and the others step by step.

    Args:
        first_GV: Logits of the first code, shaped as in ``sample_next``.
        step: From the last codes and one uniform number per row to the next codes and their log-probabilities.
        uniform_RM: One number in [0, 1) per code.
        recipe: Temperature, guidance and filters.

    Returns:
        Codes, int64 (R, M), and their log-probabilities, float32 (R, M).

    Raises:
        ValueError: The first logits are not finite.
    """
    if not torch.isfinite(first_GV).all():
        raise ValueError(
            "the model's logits are not finite: its weights are damaged or diverged; use an earlier checkpoint"
        )
    uniforms_MR = uniform_RM.T.contiguous()
    sampled = [sample_next(first_GV, uniforms_MR[0], recipe)]
    for uniform_R in uniforms_MR[1:]:
        sampled.append(step(sampled[-1][0], uniform_R))
        tasks.report(len(sampled), len(uniforms_MR))
    codes, logps = zip(*sampled, strict=True)
    return torch.stack(codes, -1), torch.stack(logps, -1)


def code_logps(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_BMD: torch.Tensor,
    codes_BM: torch.Tensor,
    n_codes: int,
    at_once: int = LOGITS_AT_ONCE,
) -> torch.Tensor:
    """Return the log-probability of each code, float32 (B, M), differentiable.

    A batch with more than ``at_once`` logits passes through the head in parts, each recomputed in the backward pass, so
    that the memory for logits does not grow with the batch.

    Args:
        head: From hidden states (K, D) to logits (K, V).
        hidden_BMD: Hidden states that predict the codes.
        codes_BM: The codes, int64.
        n_codes: V.
        at_once: Maximum number of logits in memory at a time.
    """

    def logps(hidden_KD: torch.Tensor, code_K: torch.Tensor) -> torch.Tensor:
        return -F.cross_entropy(head(hidden_KD).float(), code_K, reduction="none")

    hidden_KD, code_K = hidden_BMD.flatten(0, 1), codes_BM.flatten()
    part = max(1, at_once // n_codes)
    if len(code_K) <= part:
        return logps(hidden_KD, code_K).view_as(codes_BM)
    parts = zip(torch.split(hidden_KD, part), torch.split(code_K, part), strict=True)
    return torch.cat([checkpoint(logps, *inputs, use_reentrant=False) for inputs in parts]).view_as(codes_BM)
