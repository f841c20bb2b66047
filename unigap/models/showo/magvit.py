"""The MAGVIT-v2 image tokenizer: a convolutional autoencoder whose codes are the signs of its latents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

# Shape legend: B images, C channels, H W sides, M = H * W image tokens, D bits of a code, V = 2^D codes, N latents.

EPSILON = 1e-6
"""Added to the variance by every group norm."""


@dataclass(frozen=True)
class MagvitConfig:
    """The shape of a tokenizer; the defaults are those of Show-o's, which is ``showlab/magvitv2``.

    Args:
        bits: D; there are 2^D codes.
        channels: Feature maps at the full size.
        groups: Groups of every group norm; divides every number of channels.
        encoder_widths: Multiples of ``channels`` at each level, finest first; each level but the last halves the sides.
        encoder_blocks: Residual blocks at each level.
        decoder_widths: The same of the decoder, finest first.
        decoder_blocks: The same of the decoder, finest first.

    Raises:
        ValueError: A number is no positive integer, or the lists do not name the same levels.
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
                raise ValueError(f"the image tokenizer is made of positive integers, got {number!r}")
        if len({len(level) for level in lists}) != 1:
            raise ValueError("encoder_widths, encoder_blocks, decoder_widths and decoder_blocks name the same levels")
        if self.channels % self.groups:
            raise ValueError(f"channels {self.channels} do not fall evenly into {self.groups} groups")

    @property
    def patch(self) -> int:
        """Pixels on a side that become one token."""
        return 2 ** (len(self.encoder_widths) - 1)


class Magvit(nn.Module):
    """Pixels to codes and back.

    From "Language Model Beats Diffusion - Tokenizer is Key to Visual Generation" (Yu et al. 2024), of which Show-o uses
    the form for single images: plain convolutions where the paper has causal ones over time. A latent of D channels is
    quantised channel by channel to its sign, which needs no codebook to look anything up in; a code is the number whose
    binary digits, the first channel's in the highest place, say which signs are positive.

    Args:
        config: Its shape.
    """

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    @property
    def code_latents(self) -> torch.Tensor:
        """The latent that each code stands for, (V, D): the same in all tokenizers of so many bits."""
        return signs(torch.arange(2**self.config.bits, device=self._device), self.config.bits)

    @property
    def codebook(self) -> torch.Tensor:
        """What the decoder makes of each code before it looks around, (V, D): it differs between tokenizers."""
        return self.decoder.post_quant_conv(self.code_latents[..., None, None])[..., 0, 0]

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """What the signs are taken of, (B, D, H, W), for pixels in [-1, 1]."""
        return self.encoder(pixels_BCHW)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Codes, int64 (B, M), row by row, for pixels in [-1, 1]."""
        return codes_of(self.latents(pixels_BCHW).flatten(2).transpose(1, 2))

    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W), about in [-1, 1], of square images."""
        side = math.isqrt(codes_BM.shape[1])
        latent_BDM = signs(codes_BM, self.config.bits).transpose(1, 2)
        return self.decoder(latent_BDM.reshape(*latent_BDM.shape[:2], side, side))

    @property
    def _device(self) -> torch.device:
        return self.decoder.post_quant_conv.weight.device


# -- lookup-free quantisation


def codes_of(latent: torch.Tensor) -> torch.Tensor:
    """The code of each latent (..., D), int64 (...): a binary digit for each channel, 1 where it is above 0."""
    bits = latent.shape[-1]
    places = 2 ** torch.arange(bits - 1, -1, -1, device=latent.device)
    return ((latent > 0) * places).sum(-1)


def signs(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The latent that a code stands for, float32 (..., D) of -1 and 1."""
    digits = codes[..., None] >> torch.arange(bits - 1, -1, -1, device=codes.device) & 1
    return 2 * digits.float() - 1


@dataclass(frozen=True)
class Quantised:
    """Latents as the decoder gets them, and what trains the encoder beside its reconstruction.

    Attributes:
        latent_BDHW: Of -1 and 1; the gradient passes straight through to the encoder's latents.
        commitment: Mean squared distance of the latents from it.
        entropy: How undecided single latents are less how evenly all codes are used, in nats: lower is better.
    """

    latent_BDHW: torch.Tensor
    commitment: torch.Tensor
    entropy: torch.Tensor


def quantise(latent_BDHW: torch.Tensor, sharpness: float = 1.0) -> Quantised:
    """Lookup-free quantisation with its entropy penalty (section 3.1 of the paper).

    A latent chooses a code with a probability that falls with the squared distance to it. Over signs that factorises:
    each channel chooses +1 with probability sigmoid(4 * sharpness * latent). Like the paper, the entropy of a single
    choice is the sum over channels, exactly; that of all choices together is taken as if channels were independent,
    an upper bound.

    Args:
        latent_BDHW: The encoder's output.
        sharpness: Inverse temperature of the choice, > 0.
    """
    sign_BDHW = torch.where(latent_BDHW > 0, 1.0, -1.0)
    logit_ND = 4 * sharpness * latent_BDHW.movedim(1, -1).flatten(0, -2)
    alone = _binary_entropy(logit_ND.sigmoid()).sum(-1).mean()
    together = _binary_entropy(logit_ND.sigmoid().mean(0)).sum()
    through_BDHW = latent_BDHW + (sign_BDHW - latent_BDHW).detach()
    return Quantised(through_BDHW, F.mse_loss(latent_BDHW, sign_BDHW), alone - together)


def _binary_entropy(share: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(share) + torch.special.entr(1 - share)


# -- the two halves


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to latents (B, D, H / patch, W / patch)."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.channels * multiple for multiple in config.encoder_widths]
        inputs = [config.channels, *widths[:-1]]
        coarsest = len(widths) - 1
        self.conv_in = _conv3(3, config.channels)
        self.levels = nn.ModuleList(
            Level(entering, width, blocks, config.groups, None if level == coarsest else Halve(width))
            for level, (entering, width, blocks) in enumerate(zip(inputs, widths, config.encoder_blocks, strict=True))
        )
        self.middle = _middle(widths[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], EPSILON)
        self.conv_out = _conv3(widths[-1], config.bits)
        self.quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Latents."""
        hidden_BCHW = self.conv_in(pixels_BCHW)
        for level in self.levels:
            hidden_BCHW = level(hidden_BCHW)
        hidden_BCHW = F.silu(self.norm_out(self.middle(hidden_BCHW)))
        return self.quant_conv(self.conv_out(hidden_BCHW))


class Decoder(nn.Module):
    """Latents (B, D, H, W) of -1 and 1 to pixels (B, 3, patch * H, patch * W); its levels are listed finest first."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.channels * multiple for multiple in config.decoder_widths]
        inputs = [*widths[1:], widths[-1]]
        self.post_quant_conv = nn.Conv2d(config.bits, config.bits, 1)
        self.conv_in = _conv3(config.bits, widths[-1])
        self.middle = _middle(widths[-1], config.groups)
        self.levels = nn.ModuleList(
            Level(entering, width, blocks, config.groups, Double(width) if level else None)
            for level, (entering, width, blocks) in enumerate(zip(inputs, widths, config.decoder_blocks, strict=True))
        )
        self.norm_out = nn.GroupNorm(config.groups, widths[0], EPSILON)
        self.conv_out = _conv3(widths[0], 3)

    def forward(self, latent_BDHW: torch.Tensor) -> torch.Tensor:
        """Pixels."""
        hidden_BCHW = self.middle(self.conv_in(self.post_quant_conv(latent_BDHW)))
        for level in reversed(self.levels):
            hidden_BCHW = level(hidden_BCHW)
        return self.conv_out(F.silu(self.norm_out(hidden_BCHW)))


class Level(nn.Module):
    """The residual blocks of one size, and the step to the next."""

    def __init__(self, entering: int, width: int, blocks: int, groups: int, resample: nn.Module | None) -> None:
        super().__init__()
        widths = [entering, *[width] * blocks]
        self.blocks = nn.Sequential(*(Residual(*pair, groups) for pair in itertools.pairwise(widths)))
        self.resample = resample or nn.Identity()

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """The next size's input."""
        return self.resample(self.blocks(hidden_BCHW))


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, entering: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, entering, EPSILON), _conv3(entering, width)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width, EPSILON), _conv3(width, width)
        self.shortcut = nn.Identity() if entering == width else nn.Conv2d(entering, width, 1)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Features of the same size."""
        changed_BCHW = self.conv1(F.silu(self.norm1(hidden_BCHW)))
        return self.shortcut(hidden_BCHW) + self.conv2(F.silu(self.norm2(changed_BCHW)))


class Attention(nn.Module):
    """Each place looks at all places, with one head, beside a shortcut."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, EPSILON)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Features of the same size."""
        normed_BCHW = self.norm(hidden_BCHW)
        asked, offered, told = (
            conv(normed_BCHW).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v)
        )
        heard_BMC = F.scaled_dot_product_attention(asked, offered, told)[:, 0]
        return hidden_BCHW + self.proj_out(heard_BMC.transpose(1, 2).reshape(hidden_BCHW.shape))


class Halve(nn.Module):
    """Half the sides, by a convolution with stride 2 that is padded to the right and below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Features of half the size."""
        return self.conv(F.pad(hidden_BCHW, (0, 1, 0, 1)))


class Double(nn.Module):
    """Twice the sides: every pixel is repeated, then convolved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv3(width, width)

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Features of twice the size."""
        return self.conv(F.interpolate(hidden_BCHW, scale_factor=2, mode="nearest"))


def _middle(width: int, groups: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width, groups), Attention(width, groups), Residual(width, width, groups))


def _conv3(entering: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(entering, width, 3, padding=1)
