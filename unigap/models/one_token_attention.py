"""Attention from one token of each row on a CPU: two batched products, which take less than torch's fused kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AttentionInterface

# Shape legend: R rows, H heads of queries, K heads of keys and values, S slots, D head width, B = R * K,
# G = H / K queries that share keys and values.

NAME = "one_token"
"""What transformers' layers call it."""


def attend(
    module: Any,
    query_RH1D: torch.Tensor,
    key_RKSD: torch.Tensor,
    value_RKSD: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' attention functions give back, (R, 1, H, D); ``attention_mask`` is (R * K, 1, S)."""
    rows, heads, _slots, width = key_RKSD.shape
    query_BGD = query_RH1D.reshape(rows * heads, -1, width)
    key_BSD, value_BSD = key_RKSD.flatten(0, 1), value_RKSD.flatten(0, 1)
    score_BGS = torch.baddbmm(attention_mask, query_BGD, key_BSD.transpose(1, 2), alpha=scaling)
    weight_BGS = score_BGS.softmax(-1, dtype=torch.float32).to(value_BSD.dtype)
    return torch.bmm(weight_BGS, value_BSD).view(rows, 1, -1, width), None


AttentionInterface.register(NAME, attend)


@contextlib.contextmanager
def attending_from_one_token(config: Any) -> Iterator[None]:
    """Lets the layers of a transformers model attend this way.

    Args:
        config: That of the model.
    """
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
