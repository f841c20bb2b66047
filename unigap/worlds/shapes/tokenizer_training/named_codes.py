"""Training a tokenizer whose codes are given out beforehand: each look of a cell has one of its own."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from unigap.worlds.shapes.lesson_data import CrowdBatch
from unigap.worlds.shapes.scenes import JITTER, KINDS
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer, TokenizerTrainer, rebuilding_loss

# Shape legend: B images, D latent width, K cells of an image, V codes.

LOOKS = (len(KINDS) + 1) * JITTER**2
"""Least number of codes: one for every kind in every place of its cell, and as many for no kind, which uses one."""


class NamedCodes(TokenizerTrainer):
    """Quantisation of pictures whose cells are known, for codebooks that learn and for those that cannot, as of signs.

    The number of a look is its code, 0 (``BLANK``) that of empty cells. A latent chooses a code with a probability that
    falls with the squared distance to it, and learns by cross-entropy to choose that of its cell; the decoder learns
    from the codes themselves. Over the codes of all signs the cross-entropy is the sum of a logistic loss a channel.

    Args:
        tokenizer: The tokenizer; a latent becomes the nearest code.
        foreground: Weight of pixels that are not background.

    Raises:
        ValueError: It has fewer than ``LOOKS`` codes.
    """

    def __init__(self, tokenizer: ImageTokenizer, foreground: float = 5.0) -> None:
        super().__init__()
        self.tokenizer, self.foreground = tokenizer, foreground
        if len(tokenizer.codes) < LOOKS:
            raise ValueError(f"n_codes must be >= {LOOKS}, a code for every look of a cell, got {len(tokenizer.codes)}")

    def forward(self, batch: CrowdBatch, step: int, steps: int) -> torch.Tensor:
        latent_BDHW, code_BK = self.tokenizer.latents(batch.pixels_BCHW), code_of(batch.looks_BK3)
        book_VD, latent_BKD = self.tokenizer.codes, latent_BDHW.flatten(2).transpose(1, 2)
        # squared distances, but for the length of the latent, which is the same for all codes
        near_BKV = 2 * latent_BKD @ book_VD.T - book_VD.square().sum(-1)
        named = F.cross_entropy(near_BKV.flatten(0, 1), code_BK.flatten())
        rebuilt_BCHW = self.tokenizer.rebuilt(book_VD[code_BK].transpose(1, 2).reshape(latent_BDHW.shape))
        return rebuilding_loss(rebuilt_BCHW, batch.pixels_BCHW, self.foreground) + named

    def settle(self) -> None:
        """Nothing to do: codes may lie anywhere."""


def code_of(looks_BK3: torch.Tensor) -> torch.Tensor:
    """The code of each look (kind, dy, dx), int64 (B, K)."""
    kind, dy, dx = looks_BK3.unbind(-1)
    return (kind * JITTER + dy) * JITTER + dx
