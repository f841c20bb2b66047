"""Who sees whom: masks and positions as a transformers trunk takes them, with nothing left for it to guess."""

from __future__ import annotations

from typing import Any

import torch

# Shape legend: B rows, L tokens, D hidden width.


def causal(mask_BL: torch.Tensor) -> torch.Tensor:
    """Who may see whom, bool (B, 1, L, L): earlier tokens that are no padding, and always oneself."""
    length = mask_BL.shape[1]
    before_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    # a padded query with nothing to see would be NaN
    itself_LL = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
    return ((before_LL & mask_BL.bool()[:, None, :]) | itself_LL)[:, None]


def positions(mask_BL: torch.Tensor) -> torch.Tensor:
    """Place of each token, int64 (B, L), counted from the first that is no padding."""
    return (mask_BL.cumsum(1) - 1).clamp(min=0)


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as attention adds it to its scores: 0 where one may see, the lowest number where not."""
    nothing = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, nothing, torch.finfo(dtype).min)


def run_trunk(
    llm: Any,
    embeds_BLD: torch.Tensor,
    bias: torch.Tensor | None = None,
    position_BL: torch.Tensor | None = None,
    use_cache: bool = False,
) -> Any:
    """A forward pass of the trunk.

    Args:
        llm: A transformers trunk.
        embeds_BLD: Its input.
        bias: Who may see whom, as ``additive`` makes it, broadcastable to (B, heads, L, L). ``None`` lets everyone see
            what is before, for which attention has its fastest kernels: they take no mask.
        position_BL: Place of each token; ``None`` counts from 0.
        use_cache: Whether the output holds keys and values.
    """
    return llm(inputs_embeds=embeds_BLD, attention_mask=bias, position_ids=position_BL, use_cache=use_cache)
