"""Log-likelihood of images under Janus: teacher forcing, with each prompt encoded once for all its images."""

from __future__ import annotations

from typing import Any

import torch

from unigap.models.base import PromptBatch
from unigap.models.engine.autoregressive import code_logps
from unigap.models.engine.shared_prompt import image_states

# Shape legend: B prompts, K images a prompt, R = B * K images, M image tokens, L prompt tokens, D hidden width.


def image_logps(net: Any, prompt: PromptBatch, codes_RM: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each image token, float32 (R, M), in nats, differentiable.

    Args:
        net: transformers' ``JanusForConditionalGeneration``.
        prompt: B prompts.
        codes_RM: K images per prompt; the images of one prompt are consecutive.

    Raises:
        ValueError: The number of images is not a multiple of the number of prompts.
    """
    images = prompt.images_each(codes_RM)
    text_BLD = net.model.language_model.embed_tokens(prompt.ids_BL)
    # the last code is predicted but is no input
    image_RMD = net.prepare_embeddings_for_image_generation(codes_RM[:, :-1])
    hidden_RMD = image_states(net.model.language_model, prompt.mask_BL, text_BLD, image_RMD, images)
    return code_logps(net.model.generation_head, hidden_RMD, codes_RM, net.config.vq_config.num_embeddings)
