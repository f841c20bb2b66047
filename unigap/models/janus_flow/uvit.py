"""Convolutional encoder and decoder of latents around the language model, in the names of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from unigap.models.engine.rectified_flow import time_features
from unigap.models.files.bounds import MAX_COUNT

# Shape legend: R images, C latent channels, H W latent sides, h w token sides, E width of a feature map, D hidden width
# of the language model.

EXPANSION = 4
"""Width of a block's hidden layer, in widths of its feature map."""


@dataclass(frozen=True)
class UViTSizes:
    """Sizes of an encoder or decoder, as ``params`` in config.json names them; the defaults are the authors'.

    Attributes:
        input_channels: C, of the encoder.
        out_channels: C, of the decoder.
        kernel_size: Side of the encoder's convolution.
        stride: Latents per side of a token.
        padding: Zeros around the latents; ``None`` is ``kernel_size - stride``.
        in_channels: E of the decoder's input from the language model.
        block_out_channels: E of the encoder's feature map, one entry.
        upsamples: Doublings of the decoder.
        layers_in_middle: Convolutional blocks.
        hidden_size: D.
        norm_eps: Added to a variance that divides.
        use_bias: Whether layers have a bias.
        use_mid_block: Whether there are convolutional blocks at all.

    Raises:
        ValueError: A number is not positive, or too large.
    """

    input_channels: int = 3
    out_channels: int = 3
    kernel_size: int = 7
    stride: int = 4
    padding: int | None = None
    in_channels: int = 768
    block_out_channels: tuple[int, ...] = (768,)
    upsamples: int = 2
    layers_in_middle: int = 2
    hidden_size: int = 2048
    norm_eps: float = 1e-6
    use_bias: bool = True
    use_mid_block: bool = True

    def __post_init__(self) -> None:
        for name in ("layers_in_middle", "upsamples"):
            if not 0 <= getattr(self, name) <= MAX_COUNT:
                raise ValueError(f"{name} must be in [0, {MAX_COUNT}], got {getattr(self, name)}")
        if len(self.block_out_channels) != 1:
            raise ValueError(f"block_out_channels must have one entry, got {list(self.block_out_channels)}")

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> UViTSizes:
        """Return the sizes in ``params``; as in the authors' code, other entries are ignored."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in params.items() if name in known}
        if "block_out_channels" in given:
            given["block_out_channels"] = tuple(given["block_out_channels"])
        return cls(**given)

    @property
    def width(self) -> int:
        """E of the encoder."""
        return self.block_out_channels[-1]

    @property
    def blocks(self) -> int:
        """Number of convolutional blocks."""
        return self.layers_in_middle if self.use_mid_block else 0


class TimeEmbedding(nn.Module):
    """Two layers from the features of a time to the language model.

    Args:
        features: Width of the sinusoidal features.
        width: D.
        bias: Whether the layers have a bias.
    """

    def __init__(self, features: int, width: int, bias: bool) -> None:
        super().__init__()
        self.features = features
        self.linear_1, self.linear_2 = nn.Linear(features, width, bias), nn.Linear(width, width, bias)

    def forward(self, time_R: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of times, (R, D)."""
        features = time_features(time_R, self.features).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023): scale each channel by its share of the image's energy.

    Args:
        width: Number of channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(1, 1, 1, width)), nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, map_RhwE: torch.Tensor) -> torch.Tensor:
        """Return the normalised feature map."""
        energy_R11E = torch.linalg.vector_norm(map_RhwE, dim=(1, 2), keepdim=True)
        share_R11E = energy_R11E / (energy_R11E.mean(-1, keepdim=True) + 1e-6)
        return self.bias + (self.weight * share_R11E + 1) * map_RhwE


class ConvBlock(nn.Module):
    """ConvNeXt block that a time scales and shifts.

    Args:
        width: E.
        sizes: Sizes of the encoder or decoder.
    """

    def __init__(self, width: int, sizes: UViTSizes) -> None:
        super().__init__()
        bias = sizes.use_bias
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width, bias=bias)
        self.norm = LlamaRMSNorm(width, sizes.norm_eps)
        self.channelwise_linear_1 = nn.Linear(width, EXPANSION * width, bias)
        self.channelwise_norm = ResponseNorm(EXPANSION * width)
        self.channelwise_linear_2 = nn.Linear(EXPANSION * width, width, bias)
        self.cond_embeds_mapper = nn.Linear(sizes.hidden_size, 2 * width, bias)

    def forward(self, map_REhw: torch.Tensor, time_RD: torch.Tensor) -> torch.Tensor:
        """Return the next feature map."""
        hidden = self.norm(self.depthwise(map_REhw).permute(0, 2, 3, 1))
        hidden = self.channelwise_norm(F.gelu(self.channelwise_linear_1(hidden)))
        hidden_REhw = self.channelwise_linear_2(hidden).permute(0, 3, 1, 2) + map_REhw
        scale_RE, shift_RE = self.cond_embeds_mapper(F.silu(time_RD)).chunk(2, 1)
        return hidden_REhw * (1 + scale_RE)[..., None, None] + shift_RE[..., None, None]


class Blocks(nn.Module):
    """Convolutional blocks, one module deeper, as their weights are named.

    Args:
        width: E.
        sizes: Sizes of the encoder or decoder.
    """

    def __init__(self, width: int, sizes: UViTSizes) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(ConvBlock(width, sizes) for _ in range(sizes.blocks))

    def forward(self, map_REhw: torch.Tensor, time_RD: torch.Tensor) -> torch.Tensor:
        """Return the last feature map."""
        for block in self.res_blocks:
            map_REhw = block(map_REhw, time_RD)
        return map_REhw


class LatentEncoder(nn.Module):
    """From latents at a time to a feature map with one place per token (``ShallowUViTEncoder``).

    Args:
        sizes: Its sizes.
    """

    def __init__(self, sizes: UViTSizes) -> None:
        super().__init__()
        padding = sizes.kernel_size - sizes.stride if sizes.padding is None else sizes.padding
        self.time_embed = TimeEmbedding(sizes.width, sizes.hidden_size, sizes.use_bias)
        self.in_conv = nn.Conv2d(sizes.input_channels, sizes.width, sizes.kernel_size, sizes.stride, padding)
        self.mid_block = Blocks(sizes.width, sizes)

    def forward(self, latents_RCHW: torch.Tensor, time_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the feature map (R, E, h, w) and the embedding of the time (R, D)."""
        time_RD = self.time_embed(time_R)
        return self.mid_block(self.in_conv(latents_RCHW), time_RD), time_RD


class Unpatch(nn.Module):
    """Double the sides of a feature map.

    Args:
        inputs: Width of the feature map.
        outputs: Width of the result.
        sizes: Sizes of the decoder.
    """

    def __init__(self, inputs: int, outputs: int, sizes: UViTSizes) -> None:
        super().__init__()
        self.norm = LlamaRMSNorm(inputs, sizes.norm_eps)
        self.unpatch_conv = nn.Conv2d(inputs, 4 * outputs, 1, bias=sizes.use_bias)

    def forward(self, map_REhw: torch.Tensor) -> torch.Tensor:
        """Return the larger feature map."""
        return F.pixel_shuffle(self.unpatch_conv(channels_normed(self.norm, map_REhw)), 2)


class LatentDecoder(nn.Module):
    """From the language model's hidden states and the encoder's feature map to a velocity (``ShallowUViTDecoder``).

    Args:
        sizes: Its sizes.
    """

    def __init__(self, sizes: UViTSizes) -> None:
        super().__init__()
        both = sizes.in_channels + sizes.width
        self.input_norm = LlamaRMSNorm(sizes.in_channels, sizes.norm_eps)
        self.mid_block = Blocks(both, sizes)
        widths = [both, *[sizes.width] * (sizes.upsamples - 1)]
        ends = [*[sizes.width] * (sizes.upsamples - 1), sizes.out_channels]
        self.out_convs = nn.ModuleList(Unpatch(*pair, sizes) for pair in zip(widths, ends, strict=True))

    def forward(self, map_REhw: torch.Tensor, skip_REhw: torch.Tensor, time_RD: torch.Tensor) -> torch.Tensor:
        """Return the velocity, (R, C, H, W)."""
        both = torch.cat([channels_normed(self.input_norm, map_REhw), skip_REhw], 1)
        both = self.mid_block(both, time_RD)
        for out_conv in self.out_convs:
            both = out_conv(both)
        return both


def channels_normed(norm: nn.Module, map_REhw: torch.Tensor) -> torch.Tensor:
    """Normalise a feature map over its channels."""
    return norm(map_REhw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
