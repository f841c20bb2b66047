"""Image autoencoder of BAGEL: diffusers' ``AutoencoderKL`` with the weights of ``ae.safetensors``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from unigap.models.engine.latent_codec import LatentCodec, autoencoder_class

SCALE, OFFSET = 0.3611, 0.1159
"""Latents are (z - OFFSET) * SCALE; the authors set both in code."""
RENAMED = (
    (r"(down|up)_blocks\.(\d+)\.resnets\.", r"\1.\2.block."),
    (r"(down|up)_blocks\.(\d+)\.\1samplers\.0\.", r"\1.\2.\1sample."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_(q|k|v)\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)
"""Substitutions from diffusers' names of tensors to the published ones, applied in this order."""
NEEDED = ("encoder.conv_in.weight", "decoder.conv_in.weight")


def published(codec: LatentCodec) -> dict[str, torch.Tensor]:
    """Return the tensors by the names of ``ae.safetensors``, in its shapes."""
    state, levels = codec.vae.state_dict(), len(codec.vae.config.block_out_channels)
    return {
        published_name(name, levels): tensor[..., None, None] if is_projection(name) else tensor
        for name, tensor in state.items()
    }


def codec_from_published(state: Mapping[str, torch.Tensor]) -> LatentCodec:
    """Build the autoencoder from the tensors of ``ae.safetensors``.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape.
    """
    vae = autoencoder_class()(**_config(state))
    levels = len(vae.config.block_out_channels)
    found = {}
    for name, expected in vae.state_dict().items():
        theirs = published_name(name, levels)
        if theirs not in state:
            raise ValueError(f"the weights {theirs!r} are missing")
        tensor = state[theirs].float()
        found[name] = tensor[..., 0, 0] if is_projection(name) and tensor.dim() == 4 else tensor
        if found[name].shape != expected.shape:
            raise ValueError(f"the weights {theirs!r} have shape {tuple(tensor.shape)}, not {tuple(expected.shape)}")
    unknown = sorted(set(state) - {published_name(name, levels) for name in found})
    if unknown:
        raise ValueError(f"the weights {unknown[0]!r} are unknown")
    vae.load_state_dict(found)
    return LatentCodec(vae.eval(), SCALE, OFFSET)


def published_name(name: str, levels: int) -> str:
    """Return the published name of a tensor of diffusers' autoencoder with ``levels`` resolutions."""
    for pattern, theirs in RENAMED:
        name = re.sub(pattern, theirs, name)
    # diffusers counts the decoder's levels from the coarsest
    return re.sub(r"\bup\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", name)


def is_projection(name: str) -> bool:
    """Return whether a tensor is a linear layer of diffusers that is published as a convolution of size 1."""
    return re.search(r"\.to_(q|k|v|out\.0)\.weight$", name) is not None


def _config(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return diffusers' configuration of the published tensors."""
    missing = next((name for name in NEEDED if name not in state or state[name].dim() != 4), None)
    if missing:
        raise ValueError(f"the weights {missing!r} are missing")
    blocks = re.compile(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight")
    widths = {int(match[1]): len(tensor) for name, tensor in state.items() if (match := blocks.fullmatch(name))}
    depth = len({match[2] for name in state if (match := blocks.fullmatch(name))})
    if sorted(widths) != list(range(len(widths))) or not widths:
        raise ValueError("the weights of its encoder are not numbered from level 0")
    return {
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["encoder.conv_in.weight"].shape[1],
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": tuple(widths[level] for level in range(len(widths))),
        "layers_per_block": depth,
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
