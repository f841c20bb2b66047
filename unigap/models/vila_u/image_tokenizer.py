"""Image tokenizer of VILA-U: SigLIP features, residual quantisation, and a convolutional decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder, SiglipVisionEmbeddings

from unigap.models.engine.conv_blocks import EPSILON, Attention, Residual, Upsample, conv3
from unigap.models.engine.precision import float32_arithmetic

# Shape legend: B images, M positions of an image, D codes of a position, V codes, C width of a code vector, H W sides.

GROUPS = 32
"""Groups of every group norm of the decoder; the authors set them in code."""


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of the image decoder, by the names of the published config; other entries describe the unused encoder.

    Attributes:
        z_channels: Channels of the input.
        resolution: Pixels per side at which attention is placed.
        ch: Channels at full resolution.
        out_ch: Colours.
        ch_mult: Multiples of ``ch`` at each level, finest first.
        num_res_blocks: Residual blocks at each level, one less than there are.
        attn_resolutions: Sides at which every residual block is followed by attention.
    """

    z_channels: int
    resolution: int
    ch: int
    out_ch: int
    ch_mult: Sequence[int]
    num_res_blocks: int
    attn_resolutions: Sequence[int]


@dataclass(frozen=True)
class TokenizerShape:
    """Sizes of the image tokenizer.

    Attributes:
        vit: Configuration of SigLIP, with the number of layers that run.
        depth: D.
        n_codes: V.
        shared: Whether all depths have one codebook.
        decoder: Sizes of the decoder.
        decoder_grid: Rows and columns that the decoder reads; ``None`` is those of the codes.
    """

    vit: SiglipVisionConfig
    depth: int
    n_codes: int
    shared: bool
    decoder: DecoderShape
    decoder_grid: tuple[int, int] | None = None

    @property
    def grid(self) -> int:
        """Positions per side of an image."""
        return int(self.vit.image_size) // int(self.vit.patch_size)  # type: ignore[arg-type]

    @property
    def side(self) -> int:
        """Pixels per side of a decoded image."""
        rows = self.decoder_grid[0] if self.decoder_grid else self.grid
        return rows * 2 ** (len(self.decoder.ch_mult) - 1)


class ImageTokenizer(nn.Module):
    """RQ-VAE on SigLIP features; stays in float32.

    The understanding branch reads the very code vectors that images are generated with.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: TokenizerShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.vit.hidden_size
        self.siglip_model = nn.ModuleDict({"vision_model": VisionEncoder(shape.vit)})
        self.quantizer = ResidualQuantizer(shape.depth, shape.n_codes, width, shape.shared)
        self.post_quant_conv = nn.Conv2d(width, shape.decoder.z_channels, 1)
        self.decoder = ImageDecoder(shape.decoder)

    @property
    def vision_encoder(self) -> VisionEncoder:
        """The vision encoder."""
        encoder: Any = self.siglip_model["vision_model"]
        return encoder

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode pixels in [-1, 1] of any size to codes, int64 (B, M, D)."""
        side = int(self.shape.vit.image_size)  # type: ignore[arg-type]
        pixels = pixels_BCHW.to(self.post_quant_conv.weight.device).float()
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        with float32_arithmetic(pixels.device.type):
            return self.quantizer.codes(self.features(pixels))

    def features(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the features before quantisation, (B, M, C), differentiable, of pixels of SigLIP's size."""
        return self.vision_encoder(pixels_BCHW)

    @torch.no_grad()
    def decode(self, codes_BMD: torch.Tensor) -> torch.Tensor:
        """Decode codes to pixels in [-1, 1], float32 (B, 3, H, W)."""
        with float32_arithmetic(codes_BMD.device.type):
            return self.reconstruct(self.quantizer.sums(codes_BMD)[:, :, -1]).clamp(-1, 1)

    def reconstruct(self, vectors_BMC: torch.Tensor) -> torch.Tensor:
        """Decode sums of code vectors to pixels, about in [-1, 1], differentiable."""
        grid = self.shape.grid
        vectors_BCM = vectors_BMC.transpose(1, 2)
        vectors_BCHW = vectors_BCM.reshape(*vectors_BCM.shape[:2], grid, grid)
        if self.shape.decoder_grid is not None:
            vectors_BCHW = F.interpolate(vectors_BCHW, self.shape.decoder_grid, mode="bilinear")
        return self.decoder(self.post_quant_conv(vectors_BCHW))


class VisionEncoder(nn.Module):
    """SigLIP without its last layer, whose output the authors do not use.

    Args:
        config: Configuration, with the number of layers that run.
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.embeddings: Any = SiglipVisionEmbeddings(config)
        self.encoder: Any = SiglipEncoder(config)  # type: ignore[arg-type]

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the features of all patches."""
        return self.encoder(inputs_embeds=self.embeddings(pixels_BCHW)).last_hidden_state


class ResidualQuantizer(nn.Module):
    """Residual quantisation (Lee et al. 2022): each code is nearest to what the codes before it leave over.

    Args:
        depth: D.
        n_codes: V.
        width: C.
        shared: Whether all depths have one codebook.
    """

    def __init__(self, depth: int, n_codes: int, width: int, shared: bool) -> None:
        super().__init__()
        self.depth, self.n_codes = depth, n_codes
        # the published tables have one more row, of zeros, as a padding code
        self.codebooks = nn.ModuleList(
            nn.Embedding(n_codes + 1, width, padding_idx=n_codes) for _ in range(1 if shared else depth)
        )

    def table(self, depth: int) -> torch.Tensor:
        """Return the code vectors (V, C) of a depth, counted from 0."""
        book: Any = self.codebooks[depth if len(self.codebooks) > 1 else 0]
        return book.weight[: self.n_codes]

    def codes(self, features_BMC: torch.Tensor) -> torch.Tensor:
        """Return the codes of features, int64 (B, M, D)."""
        left_NC, found = features_BMC.flatten(0, 1), []
        for depth in range(self.depth):
            table_VC = self.table(depth)
            square_NV = left_NC.square().sum(-1, keepdim=True) + table_VC.square().sum(-1)
            found.append(torch.addmm(square_NV, left_NC, table_VC.T, alpha=-2).argmin(-1))
            left_NC = left_NC - table_VC[found[-1]]
        return torch.stack(found, -1).view(*features_BMC.shape[:2], self.depth)

    @torch.no_grad()
    def sums(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the sums of the code vectors up to each depth, (..., D, C), of codes (..., D)."""
        return torch.stack([self.table(depth)[codes[..., depth]] for depth in range(self.depth)], -2).cumsum(-2)


class ImageDecoder(nn.Module):
    """Features (B, z_channels, H, W) to pixels of 2 ** (levels - 1) times the size."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        widths = [shape.ch * multiple for multiple in shape.ch_mult]
        coarsest = len(widths) - 1
        self.conv_in = conv3(shape.z_channels, widths[-1])
        self.mid = nn.ModuleDict(
            {
                "block_1": Residual(widths[-1], widths[-1], GROUPS),
                "attn_1": Attention(widths[-1], GROUPS),
                "block_2": Residual(widths[-1], widths[-1], GROUPS),
            }
        )
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = [widths[min(level + 1, coarsest)], *[width] * shape.num_res_blocks]
            attends = shape.resolution // 2**level in shape.attn_resolutions
            self.up.append(DecoderLevel(inputs, width, attends, upsamples=level > 0))
        self.norm_out, self.conv_out = nn.GroupNorm(GROUPS, widths[0], EPSILON), conv3(widths[0], shape.out_ch)

    def forward(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the pixels of features."""
        hidden_BCHW = self.conv_in(features_BCHW)
        for part in self.mid.values():
            hidden_BCHW = part(hidden_BCHW)
        for level in reversed(self.up):
            hidden_BCHW = level(hidden_BCHW)
        return self.conv_out(F.silu(self.norm_out(hidden_BCHW)))


class DecoderLevel(nn.Module):
    """Residual blocks at one resolution, each with attention if ``attends``, and the step to the next resolution."""

    def __init__(self, inputs: Sequence[int], width: int, attends: bool, upsamples: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(in_width, width, GROUPS) for in_width in inputs)
        self.attn = nn.ModuleList(Attention(width, GROUPS) for _ in inputs if attends)
        self.upsample = Upsample(width) if upsamples else nn.Identity()

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the input of the next finer level."""
        for number, block in enumerate(self.block):
            hidden_BCHW = block(hidden_BCHW)
            if self.attn:
                hidden_BCHW = self.attn[number](hidden_BCHW)
        return self.upsample(hidden_BCHW)
