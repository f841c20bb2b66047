"""One token of each row through a layer of a Llama-like trunk: what transformers' layer computes, in fewer calls.

A small step is bound by calls, not by arithmetic. The layer's own ``forward`` is not called: what is hooked onto it, as
the gathering of a sharded layer is, does not run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

# Shape legend: R rows, D hidden width, W head width, H heads of queries, K heads of keys and values, S slots,
# B = R * K, G = H / K queries that share keys and values.

Cache = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Takes the token's keys and values (R, K, 1, W) and gives back those of all slots."""
Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and signed sines of places, (R, 1, 1, W) for one token of each row."""


def rotation(cos_RSW: torch.Tensor, sin_RSW: torch.Tensor) -> Rotation:
    """What queries and keys are turned by, (R, 1, S, W), from what transformers' rotary embedding gives."""
    half = sin_RSW.shape[-1] // 2
    signed_RSW = torch.cat((-sin_RSW[..., :half], sin_RSW[..., half:]), -1)
    return cos_RSW[:, None], signed_RSW[:, None]


def run_layer(layer: Any, hidden_RD: torch.Tensor, turn: Rotation, cache: Cache, bias: torch.Tensor) -> torch.Tensor:
    """Hidden states (R, D) behind one layer, which is in eval mode; ``bias`` is what ``attend`` takes."""
    attention = layer.self_attn
    asked_RD = normed(layer.input_layernorm, hidden_RD)
    query_RH1W, key_RK1W, value_RK1W = (
        project(asked_RD).view(len(asked_RD), -1, 1, attention.head_dim)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    keys_RKSW, values_RKSW = cache(_turned(key_RK1W, turn), value_RK1W)
    seen_RD = attend(_turned(query_RH1W, turn), keys_RKSW, values_RKSW, bias, attention.scaling)
    hidden_RD = hidden_RD + attention.o_proj(seen_RD)
    return hidden_RD + layer.mlp(normed(layer.post_attention_layernorm, hidden_RD))


def normed(norm: Any, hidden_RD: torch.Tensor) -> torch.Tensor:
    """What one of transformers' RMS norms gives."""
    # in mixed precision the weights may have the higher one
    return F.rms_norm(hidden_RD.to(norm.weight.dtype), norm.weight.shape, norm.weight, norm.variance_epsilon)


def attend(
    query_RH1W: torch.Tensor, keys_RKSW: torch.Tensor, values_RKSW: torch.Tensor, bias: torch.Tensor, scaling: float
) -> torch.Tensor:
    """What each token sees, its heads side by side, (R, D).

    Args:
        query_RH1W: The tokens' queries.
        keys_RKSW: Keys of all slots.
        values_RKSW: Values of all slots.
        bias: Added to the scores of the first S slots, the others are not read: (R, 1, 1, S) for torch's fused kernel,
            or (R * K, 1, S) for two batched products, which on a CPU take two thirds of its time: it is made for many
            queries.
        scaling: Multiplies the scores.
    """
    rows, heads, _slots, width = keys_RKSW.shape
    slots = bias.shape[-1]
    if bias.dim() == 4:
        shared = query_RH1W.shape[1] != heads
        seen_RH1W = F.scaled_dot_product_attention(
            query_RH1W, keys_RKSW[:, :, :slots], values_RKSW[:, :, :slots], bias, scale=scaling, enable_gqa=shared
        )
        return seen_RH1W.flatten(1)
    query_BGW = query_RH1W.reshape(rows * heads, -1, width)
    keys_BSW, values_BSW = keys_RKSW.flatten(0, 1)[:, :slots], values_RKSW.flatten(0, 1)[:, :slots]
    score_BGS = torch.baddbmm(bias, query_BGW, keys_BSW.transpose(1, 2), alpha=scaling)
    weight_BGS = score_BGS.softmax(-1, dtype=torch.float32).to(values_BSW.dtype)
    return torch.bmm(weight_BGS, values_BSW).view(rows, -1)


def _turned(heads_RH1W: torch.Tensor, turn: Rotation) -> torch.Tensor:
    cos_R11W, sin_R11W = turn
    return heads_RH1W * cos_R11W + heads_RH1W.roll(heads_RH1W.shape[-1] // 2, -1) * sin_R11W
