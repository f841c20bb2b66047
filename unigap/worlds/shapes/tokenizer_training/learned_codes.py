"""Train an image tokenizer with a learned codebook: straight-through gradients, seeded codes, dead codes revived."""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional as F

from unigap.worlds.shapes.lesson_data import CrowdBatch, crowd_batch
from unigap.worlds.shapes.scenes import KINDS
from unigap.worlds.shapes.tokenizer_training.base import BLANK, ImageTokenizer, TokenizerTrainer, reconstruction_loss

# Shape legend: B images, D latent width, K cells per image, V codes, N cells with an object.


class LearnedCodes(TokenizerTrainer):
    """Vector quantisation on the unit sphere: the nearest code is the one with the highest cosine similarity.

    Two choices make the codes predictable for a language model:

    * An auxiliary head predicts the kind and the jitter of each cell's object from the latents. Without the head,
      shapes and sizes share codes; without its jitter, different jitters of a kind share codes.
    * Empty cells have one fixed code. Otherwise they use more than half of all codes and encode the jitter of their
      neighbours, which is noise to a language model.

    Codes are seeded after a fifth of the steps, because quantising from the start fixes bad codes. Unused codes are
    revived until 85 % of the steps, because the decoder never sees codes that are revived at the end.

    Args:
        tokenizer: The tokenizer; its codebook is kept at unit norm.
        commitment: Weight of the commitment loss, which pulls latents towards their codes.
        naming: Weight of the auxiliary cross-entropies.
        foreground: Weight of pixels that are not background.
    """

    def __init__(
        self, tokenizer: ImageTokenizer, commitment: float = 0.25, naming: float = 1.0, foreground: float = 5.0
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        width = self.codes.shape[1]
        self.namer, self.placer = nn.Linear(width, len(KINDS) + 1), nn.Linear(width, 2)
        self.commitment, self.naming, self.foreground = commitment, naming, foreground

    @property
    def codes(self) -> torch.Tensor:
        """Code vectors, (V, D)."""
        return self.tokenizer.codes

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return unit-norm latents, (B, D, H, W)."""
        return F.normalize(self.tokenizer.latents(pixels_BCHW), dim=1)

    def forward(self, batch: CrowdBatch, step: int, steps: int) -> torch.Tensor:
        seeding = int(0.2 * steps)
        if step == seeding:
            self.seed_codes(crowd_batch(random.Random("seed codes"), 512))
        elif seeding < step < 0.85 * steps and step % 100 == 0:
            self.revive_codes(crowd_batch(random.Random(f"revive {step}"), 256))
        return self.loss(batch, quantise=step >= seeding)

    def loss(self, batch: CrowdBatch, quantise: bool) -> torch.Tensor:
        """Return the loss of encoder, codes and decoder; without ``quantise`` only empty cells have a code."""
        latent_BDHW = self.latents(batch.pixels_BCHW)
        latent_BKD = latent_BDHW.flatten(2).transpose(1, 2)
        kind_BK = batch.labels_BK3[..., 0]
        book_VD = F.normalize(self.codes, dim=-1)
        nearest_BK = (latent_BKD.detach() @ book_VD[BLANK + 1 :].detach().T).argmax(-1) + BLANK + 1
        code_BKD = book_VD[nearest_BK.where(kind_BK > 0, BLANK)]
        if not quantise:
            code_BKD = code_BKD.where((kind_BK == 0)[..., None], latent_BKD)
        pull = F.mse_loss(code_BKD, latent_BKD.detach()) + self.commitment * F.mse_loss(latent_BKD, code_BKD.detach())
        # straight-through: decode the codes, pass the gradient to the latents
        through_BKD = latent_BKD + (code_BKD - latent_BKD).detach()
        decoded_BCHW = self.tokenizer.rebuilt(through_BKD.transpose(1, 2).view_as(latent_BDHW))
        named = self.naming * self._naming(latent_BKD, batch.labels_BK3)
        rebuilt = reconstruction_loss(decoded_BCHW, batch.pixels_BCHW, self.foreground)
        return rebuilt + named + pull * latent_BKD.shape[-1]

    def _naming(self, latent_BKD: torch.Tensor, labels_BK3: torch.Tensor) -> torch.Tensor:
        scaled_BKD = latent_BKD * latent_BKD.shape[-1] ** 0.5
        kind_BK = labels_BK3[..., 0]
        kinds = F.cross_entropy(self.namer(scaled_BKD).transpose(1, 2), kind_BK)
        there = kind_BK > 0
        return kinds + F.binary_cross_entropy_with_logits(
            self.placer(scaled_BKD[there]), labels_BK3[there][:, 1:].to(latent_BKD.dtype)
        )

    def _objects(self, batch: CrowdBatch) -> torch.Tensor:
        """Return the latents of the cells with an object, (N, D)."""
        return self.latents(batch.pixels_BCHW).flatten(2).transpose(1, 2)[batch.labels_BK3[..., 0] > 0]

    @torch.no_grad()
    def seed_codes(self, batch: CrowdBatch) -> None:
        """Seed all codes except ``BLANK`` from latents of objects by k-means++."""
        points_ND = self._objects(batch)
        nearest_N = torch.full((len(points_ND),), 4.0)
        for code in range(BLANK + 1, len(self.codes)):
            pick = torch.multinomial(nearest_N.clamp_min(1e-9), 1)
            self.codes[code] = points_ND[pick]
            nearest_N = torch.minimum(nearest_N, (points_ND - points_ND[pick]).square().sum(-1))

    @torch.no_grad()
    def revive_codes(self, batch: CrowdBatch) -> int:
        """Move codes that no object in the batch uses to latents far from their nearest code; return their number."""
        points_ND = self._objects(batch)
        cosine_N, used_N = (points_ND @ F.normalize(self.codes[BLANK + 1 :], dim=-1).T).max(-1)
        dead = torch.ones(len(self.codes), dtype=torch.bool)
        dead[BLANK], dead[used_N + BLANK + 1] = False, False
        count = int(dead.sum())
        if count:
            self.codes[dead] = points_ND[torch.multinomial((1 - cosine_N).clamp_min(1e-6), count)]
        return count

    @torch.no_grad()
    def settle(self) -> None:
        """Normalise the codes, as ``JanusVQVAE.decode`` of transformers does."""
        self.codes.copy_(F.normalize(self.codes, dim=-1))
