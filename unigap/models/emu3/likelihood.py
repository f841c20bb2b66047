"""Log-likelihood of images under Emu3: teacher forcing over the image codes, with forced ends of lines."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from unigap.models.base import PromptBatch
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.autoregressive import code_logps
from unigap.models.engine.shared_prompt import image_states

# Shape legend: B prompts, K images a prompt, R = B * K images, M codes of an image, I input tokens of an image,
# L prompt tokens, D hidden width.


def image_logps(net: Any, layout: ImageTokens, prompt: PromptBatch, codes_RM: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each image code among all image codes, float32 (R, M), in nats, differentiable.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``.
        layout: Token ids and line layout of an image.
        prompt: B prompts.
        codes_RM: K images per prompt; the images of one prompt are consecutive.

    Raises:
        ValueError: The number of images is not a multiple of the number of prompts.
    """
    images, embed = prompt.images_each(codes_RM), net.model.text_model.embed_tokens
    # the last code is predicted, so it and its end-of-line token are no input
    image_RID = embed(layout.to_ids(codes_RM)[:, :-2])
    hidden_RID = image_states(net.model.text_model, prompt.mask_BL, embed(prompt.ids_BL), image_RID, images)
    head = partial(layout.code_logits, net.lm_head)
    return code_logps(head, hidden_RID[:, layout.position_M], codes_RM, layout.n_codes)
