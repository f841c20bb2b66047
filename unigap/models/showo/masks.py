"""Which tokens of a Show-o see which, which image tokens are masked for an estimate, and how many stay masked when."""

from __future__ import annotations

import math

import torch

from unigap.models.engine.attention import causal

# Shape legend: B prompts or images, R images, L text tokens, I tokens of an image with its two marks,
# S tokens of a row, M image tokens, K masks a prompt.

GOLDEN = -0x61C8864680B583EB
FIRST_FACTOR, SECOND_FACTOR = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""Constants of the splitmix64 generator (Steele, Lea and Flood 2014), as signed numbers."""
EXACT_BITS = 53
"""Random bits that fit a float64."""


def sees_while_drawing(text_BL: torch.Tensor, image: int) -> torch.Tensor:
    """Who may see whom in rows [text | image], bool (B, 1, S, S).

    Text sees the text before it. All of an image, its two marks included, sees the text and all of the image.

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


def sees_while_reading(segment_BS: torch.Tensor) -> torch.Tensor:
    """Who may see whom in rows [image | text 1 | text 2 ...], bool (B, 1, S, S).

    The image sees all of itself, a text sees the image and what comes before in the same text.

    Args:
        segment_BS: 0 for the image with its marks, else the number of the text, -1 for padding.
    """
    image_BS = segment_BS == 0
    same_BSS = segment_BS[:, :, None] == segment_BS[:, None, :]
    before_BSS = (same_BSS | image_BS[:, None, :]).tril()
    return (before_BSS | image_BS[:, :, None] & image_BS[:, None, :])[:, None]


def unmasking_schedule(tokens: int, steps: int) -> list[int]:
    """How many tokens are masked still after each step, falling to 0.

    The cosine schedule of MaskGIT (Chang et al. 2022), rounded down; every step fixes at least one token, so that
    there are never more steps than tokens.

    Args:
        tokens: M.
        steps: Most steps, >= 1.
    """
    left: list[int] = []
    masked = tokens
    for step in range(1, steps + 1):
        planned = math.floor(tokens * math.cos(math.pi / 2 * step / steps)) if step < steps else 0
        masked = min(planned, masked - 1)
        left.append(masked)
        if masked == 0:
            break
    return left


def choice_temperatures(temperature: float, steps: int) -> list[float]:
    """How much noise stirs the order of unmasking at each step, falling from ``temperature`` to 0.

    Show-o's public code multiplies what is left by the share of steps to come at every step, where MaskGIT's
    temperature falls in a straight line; this is Show-o's.
    """
    heats: list[float] = []
    for step in range(1, steps + 1):
        temperature *= 1 - step / steps
        heats.append(temperature)
    return heats


def random_masks(images: int, tokens: int) -> torch.Tensor:
    """Masks to train with, bool (R, M), True where masked, drawn from torch's generator.

    Every number of masked tokens from 1 to M is equally likely, and every set of so many tokens.

    Args:
        images: R.
        tokens: M.
    """
    size_R1 = torch.randint(1, tokens + 1, (images, 1))
    return torch.rand(images, tokens).argsort(-1).argsort(-1) < size_R1


def prompt_masks(ids_BL: torch.Tensor, text_BL: torch.Tensor, masks: int, tokens: int) -> torch.Tensor:
    """Masks to estimate likelihoods with, bool (B, K, M), True where masked: always the same for the same prompt.

    Whatever is drawn for a prompt, and under whatever weights, is measured with the same masks, so that differences of
    estimates are differences of images or weights. Over prompts, every number of masked tokens from 1 to M is equally
    likely, and every set of so many tokens; the K numbers of one prompt are spread evenly over that range, which makes
    their mean vary less. Arithmetic on whole numbers only: every device finds the same masks, and no state is read.

    Args:
        ids_BL: Prompts; padding to the left of them changes nothing.
        text_BL: Whether a token is text, not padding.
        masks: K, >= 1.
        tokens: M.
    """
    place_BL = text_BL.long().cumsum(1)
    key_B = (_scrambled(ids_BL * GOLDEN + place_BL) * text_BL.long()).sum(1)
    stream = torch.arange(masks * tokens + 1, device=ids_BL.device) + 1
    random_BN = _scrambled(_scrambled(key_B)[:, None] + stream * GOLDEN)
    first_B1 = (random_BN[:, :1] >> 64 - EXACT_BITS & 2**EXACT_BITS - 1).double() / 2**EXACT_BITS
    stratum_K = torch.arange(masks, device=ids_BL.device)
    size_BK = ((first_B1 + stratum_K) / masks * tokens).long() + 1
    rank_BKM = random_BN[:, 1:].reshape(-1, masks, tokens).argsort(-1).argsort(-1)
    return rank_BKM < size_BK[..., None].clamp(max=tokens)


def _scrambled(numbers: torch.Tensor) -> torch.Tensor:
    """Each whole number as another one that looks random, int64."""
    for shift, factor in ((30, FIRST_FACTOR), (27, SECOND_FACTOR)):
        numbers = (numbers ^ _shifted(numbers, shift)) * factor
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: torch.Tensor, places: int) -> torch.Tensor:
    # as if the numbers had no sign
    return numbers >> places & 2 ** (64 - places) - 1
