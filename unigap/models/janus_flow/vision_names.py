"""Names of the vision encoder's weights: timm's, which are published, and transformers', which run here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

TOWER, ENCODER = "vision_und_enc_model.vision_tower.", "vision_und_enc_model."
POOL = f"{TOWER}attn_pool."
"""Beginning of the names of a pooling that is published but that the authors' code never runs."""
POSITIONS, FUSED = "pos_embed", ".attn.qkv."
PROJECTIONS = tuple(f".self_attn.{letter}_proj." for letter in "qkv")
RENAMED = (
    ("patch_embed.proj.", "embeddings.patch_embedding."),
    (POSITIONS, "embeddings.position_embedding.weight"),
    ("blocks.", "encoder.layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.proj.", ".self_attn.out_proj."),
    ("norm.", "post_layernorm."),
)
"""Published part of a name and ours; the last holds for the beginning of a name only."""


def our_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename published tensors, and split the fused projections of queries, keys and values.

    Tensors of ``POOL`` are left out.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(POOL):
            continue
        if not name.startswith(TOWER):
            found[name] = tensor
            continue
        ours = ENCODER + _replaced(name.removeprefix(TOWER), RENAMED)
        if name == TOWER + POSITIONS:
            found[ours] = tensor.flatten(0, -2)
        elif FUSED in name:
            parts = tensor.chunk(3) if len(tensor) % 3 == 0 else (tensor,) * 3
            found |= {ours.replace(FUSED, own): part for own, part in zip(PROJECTIONS, parts, strict=True)}
        else:
            found[ours] = tensor
    return found


def published_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo ``our_names``."""
    found: dict[str, torch.Tensor] = {}
    back = [(ours, theirs) for theirs, ours in RENAMED]
    queries, *others = PROJECTIONS
    for name, tensor in state.items():
        if not name.startswith(ENCODER) or any(own in name for own in others):
            if not name.startswith(ENCODER):
                found[name] = tensor
            continue
        theirs = TOWER + _replaced(name.removeprefix(ENCODER), back)
        if queries in name:
            parts = [tensor, *(state[name.replace(queries, own)] for own in others)]
            found[theirs.replace(queries, FUSED)] = torch.cat(parts)
        else:
            found[theirs] = tensor[None] if theirs == TOWER + POSITIONS else tensor
    return found


def _replaced(name: str, pairs: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        # a part that begins with a point stands within a name, any other at its beginning
        pattern = re.escape(old) if old.startswith(".") else f"^{re.escape(old)}"
        name = re.sub(pattern, new, name)
    return name
