"""Sample image tokens one after another: guidance, filtering and inverse-CDF sampling with one seed per image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unigap.console import tasks
from unigap.models.base import Samples, SamplingRecipe
from unigap.models.engine.finite import check_finite

# Shape legend: B prompts, N candidates a prompt, M image tokens, V image codes, D hidden width, R = B * N rows,
# G = R rows, or 2R under guidance, K = R * M tokens.

Sampled = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Codes, their log-probabilities at temperature 1 without guidance, and those under the recipe."""
Step = Callable[[torch.Tensor, torch.Tensor], Sampled]
"""From codes (R,) and uniform numbers (R,) to the next codes and their log-probabilities."""
PLAIN = SamplingRecipe()
"""Temperature 1 without guidance and filters."""
LOGITS_AT_ONCE = 2**24
"""Maximum number of image-code logits in memory at a time: 64 MiB of float32, 1,024 tokens of Janus-Pro."""


TOKENS_AT_ONCE = 1024
"""Maximum number of image tokens whose logits under a recipe are in memory at a time."""


def uniforms(seeds_R: torch.Tensor, length: int) -> torch.Tensor:
    """Return one stream of uniform numbers in [0, 1) per seed, float64 (R, length), equal on every device."""
    generator = torch.Generator()
    rows = [torch.rand(length, dtype=torch.float64, generator=generator.manual_seed(seed)) for seed in seeds_R.tolist()]
    return torch.stack(rows)


def invert_cdf(logits_RV: torch.Tensor, uniform_R: torch.Tensor, recipe: SamplingRecipe) -> torch.Tensor:
    """Sample one code per row, int64 (R,), by inverting the cumulative distribution at ``uniform_R``."""
    if recipe.temperature == 0:
        return logits_RV.argmax(-1)
    return _invert(filtered_probs(logits_RV, recipe), uniform_R)


def filtered_probs(logits_RV: torch.Tensor, recipe: SamplingRecipe) -> torch.Tensor:
    """Return the probabilities after temperature and filters, float64 (R, V); with a filter they sum to less than 1.

    Args:
        logits_RV: Logits, guided if the recipe uses guidance.
        recipe: Temperature > 0 and filters.
    """
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
        probs_RV = probs_RV.masked_fill(torch.empty_like(outside_RV).scatter_(-1, order_RV, outside_RV), 0)
    return probs_RV


def _invert(probs_RV: torch.Tensor, uniform_R: torch.Tensor) -> torch.Tensor:
    cdf_RV = cumulative(probs_RV)
    # scale by the last entry, so that rounding never selects a filtered code
    code_R = torch.searchsorted(cdf_RV, (uniform_R * cdf_RV[:, -1])[:, None], right=True)[:, 0]
    # NaN gives V, and an embedding at V ends a GPU's process before anything can say why
    return code_R.clamp(max=cdf_RV.shape[-1] - 1)


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
        Codes, int64 (R,), their log-probabilities at temperature 1 without guidance, and those under the recipe, both
        float32 (R,).
    """
    rows = len(uniform_R)
    cond_RV = logits_GV[:rows].float()
    guided_RV = _guided(logits_GV, rows, recipe)
    if recipe.temperature == 0:
        code_R = guided_RV.argmax(-1)
        logp_R = cond_RV.log_softmax(-1).gather(-1, code_R[:, None])[:, 0]
        return code_R, logp_R, torch.zeros_like(logp_R)
    probs_RV = filtered_probs(guided_RV, recipe)
    code_R = _invert(probs_RV, uniform_R)
    logp_R = cond_RV.log_softmax(-1).gather(-1, code_R[:, None])[:, 0]
    if recipe.is_plain:
        return code_R, logp_R, logp_R
    behaviour_R = probs_RV.gather(-1, code_R[:, None])[:, 0].log() - probs_RV.sum(-1).log()
    return code_R, logp_R, behaviour_R.float()


def _guided(logits_GV: torch.Tensor, rows: int, recipe: SamplingRecipe) -> torch.Tensor:
    """Return the logits (R, V) that are sampled from, float32, before temperature and filters."""
    cond_RV = logits_GV[:rows].float()
    return cond_RV if recipe.cfg == 1 else torch.lerp(logits_GV[rows:].float(), cond_RV, recipe.cfg)


def sample_codes(first_GV: torch.Tensor, step: Step, uniform_RM: torch.Tensor, recipe: SamplingRecipe) -> Sampled:
    """Sample M codes per row, the first from ``first_GV`` and the others step by step.

    Args:
        first_GV: Logits of the first code, shaped as in ``sample_next``.
        step: From the last codes and one uniform number per row to the next codes and their log-probabilities.
        uniform_RM: One number in [0, 1) per code.
        recipe: Temperature, guidance and filters.

    Returns:
        Codes, int64 (R, M), their log-probabilities at temperature 1 without guidance, and those under the recipe, both
        float32 (R, M); the same tensor if the recipe is plain.

    Raises:
        ValueError: The first logits are not finite, or a later code has a log-probability that is no number.
    """
    check_finite(torch.isfinite(first_GV), "logits")
    uniforms_MR = uniform_RM.T.contiguous()
    sampled = [sample_next(first_GV, uniforms_MR[0], recipe)]
    for uniform_R in uniforms_MR[1:]:
        sampled.append(step(sampled[-1][0], uniform_R))
        tasks.report(len(sampled), len(uniforms_MR))
    codes, logps, behaviours = zip(*sampled, strict=True)
    logp_RM = torch.stack(logps, -1)
    check_finite(~logp_RM.isnan(), "logits")
    return torch.stack(codes, -1), logp_RM, logp_RM if recipe.is_plain else torch.stack(behaviours, -1)


def samples_of(sampled: Sampled, prompts: int, images: int) -> Samples:
    """Return sampled rows as N images per prompt; rows after the last image are padding and are dropped."""
    code_RM, logp_RM, behaviour_RM = sampled
    shape, rows = (prompts, images, code_RM.shape[1]), prompts * images
    logp_BNM = logp_RM[:rows].view(shape)
    behaviour_BNM = logp_BNM if behaviour_RM is logp_RM else behaviour_RM[:rows].view(shape)
    return Samples(code_RM[:rows].view(shape), logp_BNM, behaviour_BNM)


def scored_recipe(recipe: SamplingRecipe | None) -> SamplingRecipe:
    """Return the recipe under which likelihoods are asked for; ``None`` stands for the plain one.

    Raises:
        ValueError: The recipe is greedy.
    """
    if recipe is not None and recipe.temperature == 0:
        raise ValueError(
            "temperature 0 is greedy and gives an image probability 1 or 0, which no likelihood can learn from; "
            "set the temperature of the sampling recipe above 0"
        )
    return recipe or PLAIN


def code_logps(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_GMD: torch.Tensor,
    codes_RM: torch.Tensor,
    n_codes: int,
    at_once: int = LOGITS_AT_ONCE,
    recipe: SamplingRecipe | None = None,
) -> torch.Tensor:
    """Return the log-probability of each code under a recipe, float32 (R, M), differentiable; -inf for filtered codes.

    A batch with more than ``at_once`` logits passes through the head in parts, each recomputed in the backward pass, so
    that the memory for logits does not grow with the batch.

    Args:
        head: From hidden states (K, D) to logits (K, V).
        hidden_GMD: Hidden states that predict the codes, with those of the null prompts second under guidance.
        codes_RM: The codes, int64.
        n_codes: V.
        at_once: Maximum number of logits in memory at a time.
        recipe: Temperature > 0, guidance and filters; ``None`` is the plain one. With a recipe, at most
            ``TOKENS_AT_ONCE`` codes pass through the head at a time.
    """

    def logps(code_K: torch.Tensor, *hidden_KD: torch.Tensor) -> torch.Tensor:
        logits = [head(hidden) for hidden in hidden_KD]
        return logit_logps(logits[0] if len(logits) == 1 else torch.cat(logits), code_K, recipe or PLAIN)

    code_K, passes = codes_RM.flatten(), torch.split(hidden_GMD, len(codes_RM))
    hidden_KD = [hidden_RMD.flatten(0, 1) for hidden_RMD in passes]
    part = max(1, at_once // (n_codes * len(passes)))
    if recipe is not None:
        part = min(part, TOKENS_AT_ONCE)
    if len(code_K) <= part:
        return logps(code_K, *hidden_KD).view_as(codes_RM)
    parts = zip(*(torch.split(tensor, part) for tensor in (code_K, *hidden_KD)), strict=True)
    return torch.cat([checkpoint(logps, *inputs, use_reentrant=False) for inputs in parts]).view_as(codes_RM)


def logit_logps(logits_GV: torch.Tensor, code_R: torch.Tensor, recipe: SamplingRecipe = PLAIN) -> torch.Tensor:
    """Return the log-probability of one code per row under a recipe, float32 (R,), differentiable.

    A filter keeps the codes it would keep for these logits; a code outside has log-probability -inf and no gradient.

    Args:
        logits_GV: (R, V), or (2R, V) with the unconditional rows second if the recipe uses guidance.
        code_R: The codes, int64.
        recipe: Temperature > 0, guidance and filters.
    """
    logits_RV = _guided(logits_GV, len(code_R), recipe)
    if recipe.temperature != 1:
        logits_RV = logits_RV / recipe.temperature
    if recipe.top_k or recipe.top_p < 1:
        with torch.no_grad():
            scaled = dataclasses.replace(recipe, temperature=1.0)
            filtered_RV = filtered_probs(logits_RV, scaled) == 0
        logits_RV = logits_RV.masked_fill(filtered_RV, -torch.inf)
    return -F.cross_entropy(logits_RV, code_R, reduction="none")
