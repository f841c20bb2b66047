"""Training the stock ``JanusVQVAE``: a straight-through loss, codes seeded from latents, dead codes revived."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from unigap.shapes.scenes import KINDS, cell_picture

# Shape legend: B images, D latent width, K cells of an image, V codes.


class TokenizerTrainer(nn.Module):
    """The losses that teach a ``JanusVQVAE`` to keep every object of a picture.

    transformers' class gives the encoder no gradient in ``forward`` and normalises codes only when it decodes, so
    both are done here. An auxiliary head names the object in each cell from the latents: without it, shapes and
    sizes merge into one code.

    Args:
        vqmodel: The tokenizer; its codebook is kept at unit norm.
        commitment: Weight of the pull of latents towards their codes.
        naming: Weight of the auxiliary cross-entropy.
        gathering: Weight of the pull of empty cells' latents towards each other. Without it they take most of the
            codes, by what lies around them, and a language model has to learn that noise.
        foreground: Weight of pixels that are not background.
    """

    def __init__(self, vqmodel: Any, commitment: float = 0.25, naming: float = 1.0, foreground: float = 5.0) -> None:
        super().__init__()
        self.vqmodel: Any = vqmodel
        self.namer = nn.Linear(vqmodel.config.embed_dim, len(KINDS) + 1)
        self.commitment, self.naming, self.foreground = commitment, naming, foreground

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Unit-norm latents, (B, D, H, W)."""
        return F.normalize(self.vqmodel.quant_conv(self.vqmodel.encoder(pixels_BCHW)), dim=1)

    def forward(self, pixels_BCHW: torch.Tensor, kinds_BK: torch.Tensor, quantise: bool) -> torch.Tensor:
        """The loss of encoder, codes and decoder, a scalar."""
        latent = self.latents(pixels_BCHW)
        flat_BKD = latent.flatten(2).transpose(1, 2)
        named = F.cross_entropy(self.namer(flat_BKD * latent.shape[1] ** 0.5).transpose(1, 2), kinds_BK)
        through, pull = flat_BKD, torch.zeros((), device=latent.device)
        if quantise:
            book_VD = F.normalize(self.vqmodel.quantize.embedding.weight, dim=-1)
            code_BKD = book_VD[(flat_BKD.detach() @ book_VD.detach().T).argmax(-1)]
            pull = F.mse_loss(code_BKD, flat_BKD.detach()) + self.commitment * F.mse_loss(flat_BKD, code_BKD.detach())
            through = flat_BKD + (code_BKD - flat_BKD).detach()
        decoded = self.vqmodel.decoder(self.vqmodel.post_quant_conv(through.transpose(1, 2).view_as(latent)))
        return self._rebuilding(decoded, pixels_BCHW) + self.naming * named + pull * latent.shape[1]

    def decoder_loss(self, pixels_BCHW: torch.Tensor, codes_BK: torch.Tensor) -> torch.Tensor:
        """The loss of the decoder alone, for codes that are settled, a scalar."""
        # detached: codes that moved would no longer be what the encoder writes
        code_BDHW = self.vqmodel.quantize.get_codebook_entry(codes_BK).detach()
        return self._rebuilding(self.vqmodel.decoder(self.vqmodel.post_quant_conv(code_BDHW)), pixels_BCHW)

    def _rebuilding(self, decoded_BCHW: torch.Tensor, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        empty = torch.from_numpy(cell_picture(None)).to(pixels_BCHW)[:, :1, :1]
        weight = 1 + (self.foreground - 1) * ((pixels_BCHW - empty).abs().amax(1, keepdim=True) > 0.05)
        return (weight * (decoded_BCHW - pixels_BCHW).square()).mean()

    @torch.no_grad()
    def seed_codes(self, pixels_BCHW: torch.Tensor) -> None:
        """Places all codes on latents of real pictures, far from each other (k-means++)."""
        points_ND = self.latents(pixels_BCHW).flatten(2).transpose(1, 2).flatten(0, 1)
        weight = self.vqmodel.quantize.embedding.weight
        nearest_N = torch.full((len(points_ND),), 4.0)
        for code in range(len(weight)):
            pick = torch.multinomial(nearest_N.clamp_min(1e-9), 1)
            weight[code] = points_ND[pick]
            nearest_N = torch.minimum(nearest_N, (points_ND - points_ND[pick]).square().sum(-1))

    @torch.no_grad()
    def revive_codes(self, pixels_BCHW: torch.Tensor) -> int:
        """Moves codes that no latent of these pictures uses onto the worst-served latents; returns how many."""
        points_ND = self.latents(pixels_BCHW).flatten(2).transpose(1, 2).flatten(0, 1)
        weight = self.vqmodel.quantize.embedding.weight
        likeness_N, used_N = (points_ND @ F.normalize(weight, dim=-1).T).max(-1)
        dead = torch.ones(len(weight), dtype=torch.bool)
        dead[used_N] = False
        count = int(dead.sum())
        if count:
            weight[dead] = points_ND[torch.multinomial((1 - likeness_N).clamp_min(1e-6), count)]
        return count

    @torch.no_grad()
    def normalise_codes(self) -> None:
        """Puts the codebook on the unit sphere, where transformers' ``decode`` looks for it."""
        weight = self.vqmodel.quantize.embedding.weight
        weight.copy_(F.normalize(weight, dim=-1))
