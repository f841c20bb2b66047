"""Images behind their prompts, as teacher forcing reads them: a prompt goes through the trunk once for all of its."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from unigap.models.engine.attention import additive, causal, positions, run_trunk

# Shape legend: B rows, L prompt tokens, K images a row, R = B * K images, M tokens of one image that are read,
# S = L + K * M tokens, H heads, D their width, or the hidden width.


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


def image_states(
    llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_RMD: torch.Tensor, images: int
) -> torch.Tensor:
    """Hidden states (R, M + 1, D): after the prompt, and after each token of its image.

    Args:
        llm: A transformers trunk that reads from left to right.
        mask_BL: 1 for tokens of a prompt, 0 for its padding.
        text_BLD: Embeddings of the prompts.
        image_RMD: Embeddings of the images, those of one prompt side by side.
        images: K.
    """
    return (_alone if images == 1 else _sharing)(llm, mask_BL, text_BLD, image_RMD)


def _alone(llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_BMD: torch.Tensor) -> torch.Tensor:
    """Rows [prompt | image | padding]."""
    embeds_BSD = torch.cat([text_BLD, image_BMD], 1)
    size, length = embeds_BSD.shape[1], mask_BL.shape[1]
    # with the padding behind the image nobody looks at it, and attention needs no mask
    padding_B1 = length - mask_BL.sum(1, keepdim=True)
    from_BS = (torch.arange(size, device=padding_B1.device) + padding_B1) % size
    at_BM = torch.arange(image_BMD.shape[1] + 1, device=padding_B1.device) + length - 1 - padding_B1
    out = run_trunk(llm, embeds_BSD.take_along_dim(from_BS[..., None], 1))
    return out.last_hidden_state.take_along_dim(at_BM[..., None], 1)


def _sharing(llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_RMD: torch.Tensor) -> torch.Tensor:
    """Rows [prompt | image 1 | ... | image K]."""
    batch, length = mask_BL.shape
    images, each = len(image_RMD) // batch, image_RMD.shape[1]
    embeds_BSD = torch.cat([text_BLD, image_RMD.reshape(batch, images * each, -1)], 1)
    mask = SharedPromptMask.of(mask_BL, images, each, embeds_BSD.dtype)
    out = run_trunk(llm, embeds_BSD, mask, shared_positions(mask_BL, images, each))
    text_BLD, drawn_BSD = torch.split(out.last_hidden_state, [length, images * each], 1)
    drawn_RMD = drawn_BSD.reshape(batch * images, each, -1)
    # every image follows the end of the prompt
    return torch.cat([text_BLD[:, -1:].repeat_interleave(images, 0), drawn_RMD], 1)
