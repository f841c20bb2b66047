"""Attention masks and positions, given to a transformers backbone explicitly so that it infers neither."""

from __future__ import annotations

from typing import Any

import torch

# Shape legend: B rows, L tokens, D hidden width.


def causal(mask_BL: torch.Tensor) -> torch.Tensor:
    """Return the causal mask, bool (B, 1, L, L): each token attends to itself and to earlier non-padding tokens."""
    length = mask_BL.shape[1]
    earlier_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    # softmax over an empty row would be NaN at padded queries
    itself_LL = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
    return ((earlier_LL & mask_BL.bool()[:, None, :]) | itself_LL)[:, None]


def positions(mask_BL: torch.Tensor) -> torch.Tensor:
    """Return the position of each token, int64 (B, L), counted from the first token that is not padding.

    A token that is masked after that one keeps its position, as in a null prompt that hides all tokens but the first.
    """
    started_BL = mask_BL.cumsum(1).clamp(max=1)
    return (started_BL.cumsum(1) - 1).clamp(min=0)


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive attention mask: 0 where allowed, the lowest number of ``dtype`` elsewhere."""
    nothing = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, nothing, torch.finfo(dtype).min)


def run_trunk(
    llm: Any,
    embeds_BLD: torch.Tensor,
    bias: torch.Tensor | None = None,
    position_BL: torch.Tensor | None = None,
    use_cache: bool = False,
) -> Any:
    """Run a transformers backbone on embeddings.

    Args:
        llm: The backbone.
        embeds_BLD: Input embeddings.
        bias: Additive mask, broadcastable to (B, heads, L, L). ``None`` is causal without padding, for which attention
            uses its fastest kernels.
        position_BL: Position of each token; ``None`` counts from 0.
        use_cache: Whether to return keys and values.
    """
    return llm(inputs_embeds=embeds_BLD, attention_mask=bias, position_ids=position_BL, use_cache=use_cache)


def understanding_mask(segment_BS: torch.Tensor) -> torch.Tensor:
    """Return the attention mask of rows [image | text 1 | text 2 ...], bool (B, 1, S, S).

    The image attends to the whole image; a text attends to the image and causally to itself.

    Args:
        segment_BS: 0 for the image with start and end, 1, 2, ... for the texts, -1 for padding.
    """
    image_BS = segment_BS == 0
    same_BSS = segment_BS[:, :, None] == segment_BS[:, None, :]
    causal_BSS = (same_BSS | image_BS[:, None, :]).tril()
    return (causal_BSS | image_BS[:, :, None] & image_BS[:, None, :])[:, None]
