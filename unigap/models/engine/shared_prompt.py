"""Teacher forcing for several images that share one prompt, which passes through the backbone once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from unigap.models.engine.attention import additive, causal, positions, run_trunk

# Shape legend: B rows, L prompt tokens, K images a row, R = B * K images, M input tokens of one image,
# S = L + K * M tokens, H heads, D head or hidden width.


class SharedPromptMask(torch.Tensor):
    """Additive mask (B, 1, S, S) of rows with one prompt and several images that do not attend to each other.

    Usable as a plain tensor. ``scaled_dot_product_attention`` with this mask computes each image separately, and skips
    the scores between different images instead of masking them.

    Attributes:
        prompt: L.
        images: K.
    """

    prompt: int
    images: int

    @classmethod
    def of(cls, mask_BL: torch.Tensor, images: int, length: int, dtype: torch.dtype) -> SharedPromptMask:
        """Return the mask of left-padded prompts (1 for tokens) with ``images`` images of ``length`` tokens each."""
        rows, prompt = mask_BL.shape
        segment_S = torch.arange(images + 1, device=mask_BL.device).repeat_interleave(
            torch.tensor([prompt, *[length] * images], device=mask_BL.device)
        )
        allowed_BSS = ((segment_S[:, None] == segment_S) | (segment_S == 0)).tril().repeat(rows, 1, 1)
        allowed_BSS[:, :, :prompt] &= mask_BL.bool()[:, None, :]
        allowed_BSS[:, :prompt, :prompt] = causal(mask_BL)[:, 0]
        mask = additive(allowed_BSS[:, None], dtype).as_subclass(cls)
        mask.prompt, mask.images = prompt, images
        return mask

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute attention image by image; every other function sees a plain tensor."""
        options = kwargs or {}
        mask = options.get("attn_mask")
        with torch._C.DisableTorchFunctionSubclass():
            if func is scaled_dot_product_attention and isinstance(mask, cls):
                query, key, value = args
                others = {name: option for name, option in options.items() if name != "attn_mask"}
                plain = mask.as_subclass(torch.Tensor)
                return _attend(query, key, value, plain, mask.prompt, mask.images, **others)
            return func(*args, **options)


def _attend(
    query_BHSD: torch.Tensor,
    key_BHSD: torch.Tensor,
    value_BHSD: torch.Tensor,
    mask_B1SS: torch.Tensor,
    prompt: int,
    images: int,
    **options: Any,
) -> torch.Tensor:
    """Attend within [prompt | first image], then from each other image to the prompt and itself."""
    size = query_BHSD.shape[2]
    length = (size - prompt) // images
    row = slice(prompt + length)
    query, key, value = (t[:, :, row] for t in (query_BHSD, key_BHSD, value_BHSD))
    attended = [scaled_dot_product_attention(query, key, value, mask_B1SS[:, :, row, row], **options)]
    # the other images have the mask of the first
    mask = mask_B1SS[:, :, prompt : prompt + length, row]
    for start in range(prompt + length, size, length):
        image = slice(start, start + length)
        key, value = (torch.cat([t[:, :, :prompt], t[:, :, image]], 2) for t in (key_BHSD, value_BHSD))
        attended.append(scaled_dot_product_attention(query_BHSD[:, :, image], key, value, mask, **options))
    return torch.cat(attended, 2)


def shared_positions(mask_BL: torch.Tensor, images: int, length: int) -> torch.Tensor:
    """Return the position of each token, int64 (B, S); every image continues its prompt."""
    position_BL = positions(mask_BL)
    position_M = torch.arange(length, device=mask_BL.device).repeat(images)
    return torch.cat([position_BL, position_BL[:, -1:] + 1 + position_M], 1)


def image_states(
    llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_RMD: torch.Tensor, images: int
) -> torch.Tensor:
    """Return hidden states (R, M + 1, D): at the last prompt token, and at each image token.

    Args:
        llm: A causal transformers backbone.
        mask_BL: 1 for prompt tokens, 0 for padding.
        text_BLD: Embeddings of the prompts.
        image_RMD: Embeddings of the images; the images of one prompt are consecutive.
        images: K.
    """
    return (_one_image_each if images == 1 else masked_image_states)(llm, mask_BL, text_BLD, image_RMD)


def _one_image_each(llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_BMD: torch.Tensor) -> torch.Tensor:
    """Run rows [prompt | image | padding]."""
    embeds_BSD = torch.cat([text_BLD, image_BMD], 1)
    size, length = embeds_BSD.shape[1], mask_BL.shape[1]
    # padding after the image is never attended to, so that attention needs no mask
    padding_B1 = length - mask_BL.sum(1, keepdim=True)
    from_BS = (torch.arange(size, device=padding_B1.device) + padding_B1) % size
    at_BM = torch.arange(image_BMD.shape[1] + 1, device=padding_B1.device) + length - 1 - padding_B1
    out = run_trunk(llm, embeds_BSD.take_along_dim(from_BS[..., None], 1))
    return out.last_hidden_state.take_along_dim(at_BM[..., None], 1)


def masked_image_states(
    llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_RMD: torch.Tensor
) -> torch.Tensor:
    """Run rows [prompt | image 1 | ... | image K], and return what ``image_states`` does.

    Unlike with ``image_states``, tokens of the prompt may be masked anywhere, not only at its beginning.
    """
    batch, length = mask_BL.shape
    images, tokens = len(image_RMD) // batch, image_RMD.shape[1]
    embeds_BSD = torch.cat([text_BLD, image_RMD.reshape(batch, images * tokens, -1)], 1)
    mask = SharedPromptMask.of(mask_BL, images, tokens, embeds_BSD.dtype)
    out = run_trunk(llm, embeds_BSD, mask, shared_positions(mask_BL, images, tokens))
    text_BLD, image_BSD = torch.split(out.last_hidden_state, [length, images * tokens], 1)
    image_RMD = image_BSD.reshape(batch * images, tokens, -1)
    # the last prompt token predicts the first token of every image
    return torch.cat([text_BLD[:, -1:].repeat_interleave(images, 0), image_RMD], 1)
