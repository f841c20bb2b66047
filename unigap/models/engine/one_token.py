"""Run one token per row through a layer of a Llama-like backbone, in fewer kernel calls than transformers' layer.

A small step is bound by the number of calls, not by arithmetic. The layer's ``forward`` is not called, so its hooks,
such as the all-gather of a sharded layer, do not run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

# Shape legend: R rows, D hidden width, W head width, H query heads, K key-value heads, S cache slots, B = R * K,
# G = H / K query heads per key-value head.

CacheUpdate = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From the token's keys and values (R, K, 1, W) to those of all cache slots."""
Rotary = tuple[torch.Tensor, torch.Tensor]
"""Rotary cosines and signed sines, (R, 1, 1, W) for one token per row."""


def rotary_tables(cos_RSW: torch.Tensor, sin_RSW: torch.Tensor) -> Rotary:
    """Return rotary cosines and signed sines, (R, 1, S, W), from the output of transformers' rotary embedding."""
    half = sin_RSW.shape[-1] // 2
    signed_RSW = torch.cat((-sin_RSW[..., :half], sin_RSW[..., half:]), -1)
    return cos_RSW[:, None], signed_RSW[:, None]


def run_layer(
    layer: Any, hidden_RD: torch.Tensor, rotary: Rotary, update_cache: CacheUpdate, bias: torch.Tensor
) -> torch.Tensor:
    """Return the hidden states (R, D) after one layer in eval mode; ``bias`` is the mask of ``attend``."""
    attention = layer.self_attn
    normed_RD = rms_norm(layer.input_layernorm, hidden_RD)
    query_RH1W, key_RK1W, value_RK1W = (
        project(normed_RD).view(len(normed_RD), -1, 1, attention.head_dim)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    keys_RKSW, values_RKSW = update_cache(_rotated(key_RK1W, rotary), value_RK1W)
    attended_RD = attend(_rotated(query_RH1W, rotary), keys_RKSW, values_RKSW, bias, attention.scaling)
    hidden_RD = hidden_RD + attention.o_proj(attended_RD)
    return hidden_RD + layer.mlp(rms_norm(layer.post_attention_layernorm, hidden_RD))


def rms_norm(norm: Any, hidden_RD: torch.Tensor) -> torch.Tensor:
    """Apply one of transformers' RMS norms."""
    # in mixed precision the weights may have the higher precision
    return F.rms_norm(hidden_RD.to(norm.weight.dtype), norm.weight.shape, norm.weight, norm.variance_epsilon)


def attend(
    query_RH1W: torch.Tensor, keys_RKSW: torch.Tensor, values_RKSW: torch.Tensor, bias: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Return the attention output of each token, heads concatenated, (R, D).

    Args:
        query_RH1W: Queries of the tokens.
        keys_RKSW: Keys of all cache slots.
        values_RKSW: Values of all cache slots.
        bias: Additive mask of the first S slots; later slots are not read. (R, 1, 1, S) selects torch's fused kernel;
            (R * K, 1, S) selects two batched matrix products, which take two thirds of its time on a CPU.
        scaling: Factor of the scores.
    """
    rows, heads, _slots, width = keys_RKSW.shape
    slots = bias.shape[-1]
    if bias.dim() == 4:
        shared = query_RH1W.shape[1] != heads
        attended_RH1W = F.scaled_dot_product_attention(
            query_RH1W, keys_RKSW[:, :, :slots], values_RKSW[:, :, :slots], bias, scale=scaling, enable_gqa=shared
        )
        return attended_RH1W.flatten(1)
    query_BGW = query_RH1W.reshape(rows * heads, -1, width)
    keys_BSW, values_BSW = keys_RKSW.flatten(0, 1)[:, :slots], values_RKSW.flatten(0, 1)[:, :slots]
    score_BGS = torch.baddbmm(bias, query_BGW, keys_BSW.transpose(1, 2), alpha=scaling)
    weight_BGS = score_BGS.softmax(-1, dtype=torch.float32).to(values_BSW.dtype)
    return torch.bmm(weight_BGS, values_BSW).view(rows, -1)


def _rotated(heads_RH1W: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    cos_R11W, sin_R11W = rotary
    return heads_RH1W * cos_R11W + heads_RH1W.roll(heads_RH1W.shape[-1] // 2, -1) * sin_R11W
