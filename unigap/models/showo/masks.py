"""Attention masks of Show-o, token masks of likelihood estimates, and the unmasking schedule."""

from __future__ import annotations

import math

import torch

from unigap.models.engine.attention import causal

# Shape legend: B prompts or images, R images, L text tokens, I tokens of an image with start and end,
# S tokens of a row, M image tokens, K masks a prompt.

GOLDEN = -0x61C8864680B583EB
FIRST_FACTOR, SECOND_FACTOR = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""Constants of the splitmix64 generator (Steele, Lea and Flood 2014), as signed integers."""
EXACT_BITS = 53
"""Bits of precision of a float64."""


def generation_mask(text_BL: torch.Tensor, image: int) -> torch.Tensor:
    """Return the attention mask of rows [text | image], bool (B, 1, S, S).

    Text attends causally to text. Image tokens, start and end included, attend to the text and the whole image.

    Args:
        text_BL: Whether a token is text, not padding.
        image: I.
    """
    batch, length = text_BL.shape
    allowed_B1SS = text_BL.new_zeros((batch, 1, length + image, length + image), dtype=torch.bool)
    allowed_B1SS[:, :, :length, :length] = causal(text_BL)
    allowed_B1SS[:, :, length:, :length] = text_BL.bool()[:, None, None]
    allowed_B1SS[:, :, length:, length:] = True
    return allowed_B1SS


def unmasking_schedule(tokens: int, steps: int) -> list[int]:
    """Return the number of masked tokens after each step, falling to 0.

    This is the cosine schedule of MaskGIT (Chang et al. 2022), rounded down. Every step fixes at least one token, so
    there are at most M steps.

    Args:
        tokens: M.
        steps: Maximum number of steps, >= 1.
    """
    counts: list[int] = []
    masked = tokens
    for step in range(1, steps + 1):
        planned = math.floor(tokens * math.cos(math.pi / 2 * step / steps)) if step < steps else 0
        masked = min(planned, masked - 1)
        counts.append(masked)
        if masked == 0:
            break
    return counts


def choice_temperatures(temperature: float, steps: int) -> list[float]:
    """Return the scale of the noise on the order of unmasking at each step, falling from ``temperature`` to 0.

    As in Show-o's public code, each step multiplies the current scale by the share of steps to come; MaskGIT's falls
    linearly.
    """
    noise_scales: list[float] = []
    for step in range(1, steps + 1):
        temperature *= 1 - step / steps
        noise_scales.append(temperature)
    return noise_scales


def prompt_masks(ids_BL: torch.Tensor, text_BL: torch.Tensor, masks: int, tokens: int) -> torch.Tensor:
    """Return the masks of likelihood estimates, bool (B, K, M), True where masked, as a function of the prompt only.

    All images of a prompt, under any weights, share these masks, so that estimates differ only through images or
    weights. Over prompts, the number of masked tokens is uniform in 1 to M, and the set uniform given the number. The K
    numbers of one prompt are stratified over 1 to M, which reduces the variance of their mean.

    Args:
        ids_BL: Prompts; left padding does not change the result.
        text_BL: Whether a token is text, not padding.
        masks: K, >= 1.
        tokens: M.
    """
    position_BL = text_BL.long().cumsum(1)
    key_B = (_hashed(ids_BL * GOLDEN + position_BL) * text_BL.long()).sum(1)
    return seeded_masks(key_B, masks, tokens)


def seeded_masks(key_B: torch.Tensor, masks: int, tokens: int) -> torch.Tensor:
    """Return K masks a key, bool (B, K, M), True where masked, as a function of the key only.

    Over keys, the number of masked tokens is uniform in 1 to M, and the set of masked tokens is uniform given their
    number. The K numbers of one key are stratified over 1 to M. Integer hashing makes the masks equal on every device
    and independent of any generator.

    Args:
        key_B: Any integers, int64.
        masks: K, >= 1.
        tokens: M.
    """
    stream = torch.arange(masks * tokens + 1, device=key_B.device) + 1
    random_BN = _hashed(_hashed(key_B)[:, None] + stream * GOLDEN)
    first_B1 = (random_BN[:, :1] >> 64 - EXACT_BITS & 2**EXACT_BITS - 1).double() / 2**EXACT_BITS
    stratum_K = torch.arange(masks, device=key_B.device)
    size_BK = ((first_B1 + stratum_K) / masks * tokens).long() + 1
    rank_BKM = random_BN[:, 1:].reshape(-1, masks, tokens).argsort(-1).argsort(-1)
    return rank_BKM < size_BK[..., None].clamp(max=tokens)


def _hashed(numbers: torch.Tensor) -> torch.Tensor:
    """Hash each int64 with splitmix64."""
    for shift, factor in ((30, FIRST_FACTOR), (27, SECOND_FACTOR)):
        numbers = (numbers ^ _logical_shift(numbers, shift)) * factor
    return numbers ^ _logical_shift(numbers, 31)


def _logical_shift(numbers: torch.Tensor, places: int) -> torch.Tensor:
    # shift as unsigned integers
    return numbers >> places & 2 ** (64 - places) - 1
