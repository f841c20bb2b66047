"""How likely a Janus finds given images: teacher forcing, with a prompt read once however many images it has."""

from __future__ import annotations

from typing import Any

import torch

from unigap.models.attention import run_trunk
from unigap.models.autoregressive import code_logps
from unigap.models.base import PromptBatch
from unigap.models.shared_prompt import SharedPromptMask, shared_positions

# Shape legend: B prompts, K images a prompt, R = B * K images, M image tokens, L prompt tokens, S tokens of a row,
# D hidden width.


def image_logps(net: Any, prompt: PromptBatch, codes_RM: torch.Tensor) -> torch.Tensor:
    """Log-probability of each image token, float32 (R, M), differentiable.

    Args:
        net: transformers' ``JanusForConditionalGeneration``.
        prompt: B prompts.
        codes_RM: K images of each, those of one prompt side by side.

    Raises:
        ValueError: When the images do not fall to the prompts evenly.
    """
    images = prompt.images_each(codes_RM)
    text_BLD = net.model.language_model.embed_tokens(prompt.ids_BL)
    # the last code is predicted, never read
    image_RMD = net.prepare_embeddings_for_image_generation(codes_RM[:, :-1])
    read = _alone if images == 1 else _sharing
    hidden_RMD = read(net.model.language_model, prompt.mask_BL, text_BLD, image_RMD)
    return code_logps(net.model.generation_head, hidden_RMD, codes_RM, net.config.vq_config.num_embeddings)


def _alone(llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_BMD: torch.Tensor) -> torch.Tensor:
    """Hidden states that predict the codes, where each prompt has one image."""
    embeds_BSD = torch.cat([text_BLD, image_BMD], 1)
    size, length = embeds_BSD.shape[1], mask_BL.shape[1]
    # with the padding behind the image nobody looks at it, and attention needs no mask
    padding_B1 = length - mask_BL.sum(1, keepdim=True)
    from_BS = (torch.arange(size, device=padding_B1.device) + padding_B1) % size
    at_BM = torch.arange(image_BMD.shape[1] + 1, device=padding_B1.device) + length - 1 - padding_B1
    out = run_trunk(llm, embeds_BSD.take_along_dim(from_BS[..., None], 1))
    return out.last_hidden_state.take_along_dim(at_BM[..., None], 1)


def _sharing(llm: Any, mask_BL: torch.Tensor, text_BLD: torch.Tensor, image_RMD: torch.Tensor) -> torch.Tensor:
    """Hidden states that predict the codes, from rows [prompt | image 1 | ... | image K]."""
    batch, length = mask_BL.shape
    images, each = len(image_RMD) // batch, image_RMD.shape[1]
    embeds_BSD = torch.cat([text_BLD, image_RMD.reshape(batch, images * each, -1)], 1)
    mask = SharedPromptMask.of(mask_BL, images, each, embeds_BSD.dtype)
    out = run_trunk(llm, embeds_BSD, mask, shared_positions(mask_BL, images, each))
    text_BLD, drawn_BSD = torch.split(out.last_hidden_state, [length, images * each], 1)
    drawn_RMD = drawn_BSD.reshape(batch * images, each, -1)
    # the first code of every image follows the end of the prompt
    return torch.cat([text_BLD[:, -1:].repeat_interleave(images, 0), drawn_RMD], 1)
