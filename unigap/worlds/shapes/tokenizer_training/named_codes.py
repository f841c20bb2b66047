"""Train an image tokenizer with a code assigned in advance to each possible content of a cell."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from unigap.worlds.shapes.lesson_data import CrowdBatch
from unigap.worlds.shapes.scenes import JITTER, KINDS
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer, TokenizerTrainer, reconstruction_loss

# Shape legend: B images, D latent width, K cells of an image, V codes, J codes of a cell.

MIN_CODES = (len(KINDS) + 1) * JITTER**2
"""Smallest codebook: one code for each kind, empty included, at each jitter. Empty cells use only one of theirs."""


class NamedCodes(TokenizerTrainer):
    """Supervised quantisation: each cell has a known target code. Works for learned and for fixed codebooks.

    ``code_of`` gives the target; empty cells have code 0 (``BLANK``). The encoder is trained by a cross-entropy over
    all codes, with the negative squared distance from latent to code as logit. The decoder is trained on the target
    codes. For a codebook of all sign vectors, the cross-entropy is a sum of one logistic loss per channel.

    With residual codes, a cell has one target for each depth, the digits of its ``code_of``; each depth has codes of
    its own in the shared codebook, because a sum of two codes does not say which came first. Each depth is trained on
    what the targets before it leave over.

    Args:
        tokenizer: The tokenizer; it quantises a latent to the nearest code.
        foreground: Weight of pixels that are not background.
        depth: Codes of a cell.

    Raises:
        ValueError: The codebook has too few codes: ``MIN_CODES``, or with residual codes one for each digit and depth.
    """

    def __init__(self, tokenizer: ImageTokenizer, foreground: float = 5.0, depth: int = 1) -> None:
        super().__init__()
        self.tokenizer, self.foreground, self.depth = tokenizer, foreground, depth
        # the smallest base in which ``depth`` digits count all contents of a cell
        self.digits = next(base for base in range(2, MIN_CODES + 1) if base**depth >= MIN_CODES)
        least = self.digits * depth
        if len(tokenizer.codes) < least:
            use = (
                "one for each possible content of a cell" if depth == 1 else f"{self.digits} for each of {depth} depths"
            )
            raise ValueError(f"n_codes must be >= {least}, {use}, got {len(tokenizer.codes)}")

    def forward(self, batch: CrowdBatch, step: int, steps: int) -> torch.Tensor:
        latent_BDHW, code_BKJ = self.tokenizer.latents(batch.pixels_BCHW), self.targets(batch.labels_BK3)
        book_VD, left_BKD = self.tokenizer.codes, latent_BDHW.flatten(2).transpose(1, 2)
        named = []
        for code_BK in code_BKJ.unbind(-1):
            # negative squared distances, without the squared norm of the latent, which is the same for all codes
            near_BKV = 2 * left_BKD @ book_VD.T - book_VD.square().sum(-1)
            named.append(F.cross_entropy(near_BKV.flatten(0, 1), code_BK.flatten()))
            left_BKD = left_BKD - book_VD[code_BK]
        vector_BKD = book_VD[code_BKJ].sum(-2)
        rebuilt_BCHW = self.tokenizer.rebuilt(vector_BKD.transpose(1, 2).reshape(latent_BDHW.shape))
        return reconstruction_loss(rebuilt_BCHW, batch.pixels_BCHW, self.foreground) + sum(named)

    def targets(self, labels_BK3: torch.Tensor) -> torch.Tensor:
        """Return the target codes of each cell label, int64 (B, K, J)."""
        code_BK, places = code_of(labels_BK3), reversed(range(self.depth))
        digits = [code_BK // self.digits**place % self.digits for place in places]
        return torch.stack([digit + depth * self.digits for depth, digit in enumerate(digits)], -1)

    def settle(self) -> None:
        """Do nothing: the codes are not constrained."""


def code_of(labels_BK3: torch.Tensor) -> torch.Tensor:
    """Return the target code of each cell label (kind, dy, dx), int64 (B, K)."""
    kind, dy, dx = labels_BK3.unbind(-1)
    return (kind * JITTER + dy) * JITTER + dx
