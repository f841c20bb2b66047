"""MAGVIT-v2 image tokenizer: a convolutional autoencoder whose codes are the signs of its latents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from unigap.models.engine.conv_blocks import EPSILON, Attention, Residual, Upsample, conv3

# Shape legend: B images, C channels, H W sides, M = H * W image tokens, D bits of a code, V = 2^D codes, N latents.


@dataclass(frozen=True)
class MagvitConfig:
    """Configuration of a tokenizer; the defaults are those of Show-o's, ``showlab/magvitv2``.

    Args:
        bits: D; there are 2^D codes.
        channels: Channels at full resolution.
        groups: Groups of every group norm; divides ``channels``.
        encoder_widths: Multiples of ``channels`` at each level, finest first; every level except the last halves the
            resolution.
        encoder_blocks: Residual blocks at each level, finest first.
        decoder_widths: Multiples of ``channels`` in the decoder, finest first.
        decoder_blocks: Residual blocks in the decoder, finest first.

    Raises:
        ValueError: A number is not a positive integer, the lists differ in length, or ``groups`` does not divide
            ``channels``.
    """

    bits: int = 13
    channels: int = 128
    groups: int = 32
    encoder_widths: Sequence[int] = (1, 2, 2, 4, 4)
    encoder_blocks: Sequence[int] = (4, 3, 4, 3, 4)
    decoder_widths: Sequence[int] = (1, 1, 2, 2, 4)
    decoder_blocks: Sequence[int] = (4, 4, 3, 4, 3)

    def __post_init__(self) -> None:
        lists = [self.encoder_widths, self.encoder_blocks, self.decoder_widths, self.decoder_blocks]
        for number in (self.bits, self.channels, self.groups, *itertools.chain(*lists)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"the sizes of an image tokenizer must be positive integers, got {number!r}")
        if len({len(level) for level in lists}) != 1:
            raise ValueError("encoder_widths, encoder_blocks, decoder_widths, decoder_blocks must have equal lengths")
        if self.channels % self.groups:
            raise ValueError(f"groups must divide channels, got {self.groups} groups and {self.channels} channels")

    @property
    def patch(self) -> int:
        """Pixels per side of one token."""
        return 2 ** (len(self.encoder_widths) - 1)


class Magvit(nn.Module):
    """Encoder from pixels to codes, and decoder back.

    From "Language Model Beats Diffusion - Tokenizer is Key to Visual Generation" (Yu et al. 2024), in Show-o's form for
    single images: plain convolutions instead of temporally causal ones. Each of the D channels of a latent is quantised
    to its sign, without a codebook lookup. A code is a binary number with one digit per channel, the first channel
    most significant, and 1 for a positive sign.

    Args:
        config: The configuration.
    """

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    @property
    def code_latents(self) -> torch.Tensor:
        """Latent of each code, (V, D), equal in all tokenizers with the same number of bits."""
        return signs(torch.arange(2**self.config.bits, device=self._device), self.config.bits)

    @property
    def codebook(self) -> torch.Tensor:
        """Each code after the decoder's first pointwise convolution, (V, D); differs between tokenizers."""
        return self.decoder.post_quant_conv(self.code_latents[..., None, None])[..., 0, 0]

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the latents before quantisation, (B, D, H, W), of pixels in [-1, 1]."""
        return self.encoder(pixels_BCHW)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode pixels in [-1, 1] to codes, int64 (B, M), row by row."""
        return codes_of(self.latents(pixels_BCHW).flatten(2).transpose(1, 2))

    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        """Decode codes of square images to pixels (B, 3, H, W), about in [-1, 1]."""
        side = math.isqrt(codes_BM.shape[1])
        latent_BDM = signs(codes_BM, self.config.bits).transpose(1, 2)
        return self.decoder(latent_BDM.reshape(*latent_BDM.shape[:2], side, side))

    @property
    def _device(self) -> torch.device:
        return self.decoder.post_quant_conv.weight.device


# -- lookup-free quantisation


def codes_of(latent: torch.Tensor) -> torch.Tensor:
    """Return the code of each latent (..., D), int64 (...), with a binary digit 1 for each channel above 0."""
    bits = latent.shape[-1]
    digit_values = 2 ** torch.arange(bits - 1, -1, -1, device=latent.device)
    return ((latent > 0) * digit_values).sum(-1)


def signs(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the latent of each code, float32 (..., D), with values -1 and 1."""
    digits = codes[..., None] >> torch.arange(bits - 1, -1, -1, device=codes.device) & 1
    return 2 * digits.float() - 1


@dataclass(frozen=True)
class Quantised:
    """Quantised latents and the auxiliary losses of the encoder.

    Attributes:
        latent_BDHW: Values -1 and 1, with a straight-through gradient to the encoder's latents.
        commitment: Mean squared distance between latents and quantised latents.
        entropy: Mean entropy of single choices minus entropy of the average choice, in nats; lower is better.
    """

    latent_BDHW: torch.Tensor
    commitment: torch.Tensor
    entropy: torch.Tensor


def quantise(latent_BDHW: torch.Tensor, sharpness: float = 1.0) -> Quantised:
    """Lookup-free quantisation with its entropy penalty (section 3.1 of the paper).

    A latent chooses a code with a probability that decreases with the squared distance. This factorises over channels:
    each chooses +1 with probability sigmoid(4 * sharpness * latent). As in the paper, the entropy of a single choice is
    the exact sum over channels, and the entropy of the average choice treats channels as independent, an upper bound.

    Args:
        latent_BDHW: Output of the encoder.
        sharpness: Inverse temperature of the choice, > 0.
    """
    sign_BDHW = torch.where(latent_BDHW > 0, 1.0, -1.0)
    logit_ND = 4 * sharpness * latent_BDHW.movedim(1, -1).flatten(0, -2)
    single = _binary_entropy(logit_ND.sigmoid()).sum(-1).mean()
    average = _binary_entropy(logit_ND.sigmoid().mean(0)).sum()
    straight_through_BDHW = latent_BDHW + (sign_BDHW - latent_BDHW).detach()
    return Quantised(straight_through_BDHW, F.mse_loss(latent_BDHW, sign_BDHW), single - average)


def _binary_entropy(share: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(share) + torch.special.entr(1 - share)


# -- encoder and decoder


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to latents (B, D, H / patch, W / patch)."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.channels * multiple for multiple in config.encoder_widths]
        inputs = [config.channels, *widths[:-1]]
        coarsest = len(widths) - 1
        self.conv_in = conv3(3, config.channels)
        self.levels = nn.ModuleList(
            Level(in_width, width, blocks, config.groups, None if level == coarsest else Downsample(width))
            for level, (in_width, width, blocks) in enumerate(zip(inputs, widths, config.encoder_blocks, strict=True))
        )
        self.middle = _middle(widths[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], EPSILON)
        self.conv_out = conv3(widths[-1], config.bits)
        self.quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the latents of pixels."""
        hidden_BCHW = self.conv_in(pixels_BCHW)
        for level in self.levels:
            hidden_BCHW = level(hidden_BCHW)
        hidden_BCHW = F.silu(self.norm_out(self.middle(hidden_BCHW)))
        return self.quant_conv(self.conv_out(hidden_BCHW))


class Decoder(nn.Module):
    """Latents (B, D, H, W) of -1 and 1 to pixels (B, 3, patch * H, patch * W); ``levels`` lists the finest first."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.channels * multiple for multiple in config.decoder_widths]
        inputs = [*widths[1:], widths[-1]]
        self.post_quant_conv = nn.Conv2d(config.bits, config.bits, 1)
        self.conv_in = conv3(config.bits, widths[-1])
        self.middle = _middle(widths[-1], config.groups)
        self.levels = nn.ModuleList(
            Level(in_width, width, blocks, config.groups, Upsample(width) if level else None)
            for level, (in_width, width, blocks) in enumerate(zip(inputs, widths, config.decoder_blocks, strict=True))
        )
        self.norm_out = nn.GroupNorm(config.groups, widths[0], EPSILON)
        self.conv_out = conv3(widths[0], 3)

    def forward(self, latent_BDHW: torch.Tensor) -> torch.Tensor:
        """Return the pixels of latents."""
        hidden_BCHW = self.middle(self.conv_in(self.post_quant_conv(latent_BDHW)))
        for level in reversed(self.levels):
            hidden_BCHW = level(hidden_BCHW)
        return self.conv_out(F.silu(self.norm_out(hidden_BCHW)))


class Level(nn.Module):
    """Residual blocks at one resolution, and the change to the next resolution."""

    def __init__(self, in_width: int, width: int, blocks: int, groups: int, resample: nn.Module | None) -> None:
        super().__init__()
        widths = [in_width, *[width] * blocks]
        self.blocks = nn.Sequential(*(Residual(*pair, groups) for pair in itertools.pairwise(widths)))
        self.resample = resample or nn.Identity()

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the input of the next level."""
        return self.resample(self.blocks(hidden_BCHW))


class Downsample(nn.Module):
    """Halve the resolution by a convolution with stride 2, padded to the right and below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of half the resolution."""
        return self.conv(F.pad(hidden_BCHW, (0, 1, 0, 1)))


def _middle(width: int, groups: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width, groups), Attention(width, groups), Residual(width, width, groups))
