"""Several images of one prompt in a row [prompt | image 1 | ... | image K]: the prompt goes through the trunk once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from unigap.models.attention import additive, causal, positions

# Shape legend: B rows, L prompt tokens, K images a row, M tokens of one image, S = L + K * M tokens, H heads, D their
# width.


class SharedPromptMask(torch.Tensor):
    """Who sees whom in rows of one prompt and several images, which do not see each other.

    As a tensor it is the additive mask (B, 1, S, S) and can be used as such. Given it, torch's
    ``scaled_dot_product_attention`` leaves out the pairs of different images, which the mask would rule out one by one.

    Attributes:
        prompt: L.
        images: K.
    """

    prompt: int
    images: int

    @classmethod
    def of(cls, mask_BL: torch.Tensor, images: int, length: int, dtype: torch.dtype) -> SharedPromptMask:
        """The mask of prompts (1 for tokens, 0 for padding) with so many images of ``length`` tokens each."""
        rows, prompt = mask_BL.shape
        segment_S = torch.arange(images + 1, device=mask_BL.device).repeat_interleave(
            torch.tensor([prompt, *[length] * images], device=mask_BL.device)
        )
        allowed_BSS = ((segment_S[:, None] == segment_S) | (segment_S == 0)).tril().repeat(rows, 1, 1)
        allowed_BSS[:, :, :prompt] &= mask_BL.bool()[:, None, :]
        allowed_BSS[:, :prompt, :prompt] = causal(mask_BL)[:, 0]
        found = additive(allowed_BSS[:, None], dtype).as_subclass(cls)
        found.prompt, found.images = prompt, images
        return found

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Attention by parts; to everything else this is a plain tensor."""
        given = kwargs or {}
        mask = given.get("attn_mask")
        with torch._C.DisableTorchFunctionSubclass():
            if func is scaled_dot_product_attention and isinstance(mask, cls):
                query, key, value = args
                options = {name: option for name, option in given.items() if name != "attn_mask"}
                plain = mask.as_subclass(torch.Tensor)
                return _attend(query, key, value, plain, mask.prompt, mask.images, **options)
            return func(*args, **given)


def _attend(
    query_BHSD: torch.Tensor,
    key_BHSD: torch.Tensor,
    value_BHSD: torch.Tensor,
    mask_B1SS: torch.Tensor,
    prompt: int,
    images: int,
    **options: Any,
) -> torch.Tensor:
    """The prompt with the first image, which stands right behind it; then each other image with the prompt."""
    size = query_BHSD.shape[2]
    each = (size - prompt) // images
    row = slice(prompt + each)
    query, key, value = (t[:, :, row] for t in (query_BHSD, key_BHSD, value_BHSD))
    seen = [scaled_dot_product_attention(query, key, value, mask_B1SS[:, :, row, row], **options)]
    # every image sees what the first one sees
    mask = mask_B1SS[:, :, prompt : prompt + each, row]
    for start in range(prompt + each, size, each):
        image = slice(start, start + each)
        key, value = (torch.cat([t[:, :, :prompt], t[:, :, image]], 2) for t in (key_BHSD, value_BHSD))
        seen.append(scaled_dot_product_attention(query_BHSD[:, :, image], key, value, mask, **options))
    return torch.cat(seen, 2)


def shared_positions(mask_BL: torch.Tensor, images: int, length: int) -> torch.Tensor:
    """Place of each token, int64 (B, S): every image continues its prompt."""
    place_M = torch.arange(length, device=mask_BL.device).repeat(images)
    return torch.cat([positions(mask_BL), mask_BL.sum(1, keepdim=True) + place_M], 1)
