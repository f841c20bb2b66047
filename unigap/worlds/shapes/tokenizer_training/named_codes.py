"""Train an image tokenizer with a code assigned in advance to each possible content of a cell."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from unigap.worlds.shapes.lesson_data import CrowdBatch
from unigap.worlds.shapes.scenes import JITTER, KINDS
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer, TokenizerTrainer, reconstruction_loss

# Shape legend: B images, D latent width, K cells of an image, V codes.

MIN_CODES = (len(KINDS) + 1) * JITTER**2
"""Smallest codebook: one code for each kind, empty included, at each jitter. Empty cells use only one of theirs."""


class NamedCodes(TokenizerTrainer):
    """Supervised quantisation: each cell has a known target code. Works for learned and for fixed codebooks.

    ``code_of`` gives the target; empty cells have code 0 (``BLANK``). The encoder is trained by a cross-entropy over
    all codes, with the negative squared distance from latent to code as logit. The decoder is trained on the target
    codes. For a codebook of all sign vectors, the cross-entropy is a sum of one logistic loss per channel.

    Args:
        tokenizer: The tokenizer; it quantises a latent to the nearest code.
        foreground: Weight of pixels that are not background.

    Raises:
        ValueError: The codebook has fewer than ``MIN_CODES`` codes.
    """

    def __init__(self, tokenizer: ImageTokenizer, foreground: float = 5.0) -> None:
        super().__init__()
        self.tokenizer, self.foreground = tokenizer, foreground
        if len(tokenizer.codes) < MIN_CODES:
            raise ValueError(
                f"n_codes must be >= {MIN_CODES}, one for each possible content of a cell, got {len(tokenizer.codes)}"
            )

    def forward(self, batch: CrowdBatch, step: int, steps: int) -> torch.Tensor:
        latent_BDHW, code_BK = self.tokenizer.latents(batch.pixels_BCHW), code_of(batch.labels_BK3)
        book_VD, latent_BKD = self.tokenizer.codes, latent_BDHW.flatten(2).transpose(1, 2)
        # negative squared distances, without the squared norm of the latent, which is the same for all codes
        near_BKV = 2 * latent_BKD @ book_VD.T - book_VD.square().sum(-1)
        named = F.cross_entropy(near_BKV.flatten(0, 1), code_BK.flatten())
        rebuilt_BCHW = self.tokenizer.rebuilt(book_VD[code_BK].transpose(1, 2).reshape(latent_BDHW.shape))
        return reconstruction_loss(rebuilt_BCHW, batch.pixels_BCHW, self.foreground) + named

    def settle(self) -> None:
        """Do nothing: the codes are not constrained."""


def code_of(labels_BK3: torch.Tensor) -> torch.Tensor:
    """Return the target code of each cell label (kind, dy, dx), int64 (B, K)."""
    kind, dy, dx = labels_BK3.unbind(-1)
    return (kind * JITTER + dy) * JITTER + dx
