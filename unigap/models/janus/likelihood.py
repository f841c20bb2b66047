"""Log-likelihood of images under Janus: teacher forcing, with each prompt encoded once for all its images."""

from __future__ import annotations

from typing import Any

import torch

from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.engine.autoregressive import code_logps, scored_recipe
from unigap.models.engine.shared_prompt import image_states

# Shape legend: B prompts, P prompts read (B, or 2B with guidance: null prompts second), K images a prompt,
# R = B * K images, G = P * K rows, M image tokens, L prompt tokens, D hidden width.


def image_logps(
    net: Any, prompt: PromptBatch, codes_RM: torch.Tensor, recipe: SamplingRecipe | None = None
) -> torch.Tensor:
    """Return the log-probability of each image token, float32 (R, M), in nats, differentiable.

    Args:
        net: transformers' ``JanusForConditionalGeneration``.
        prompt: B prompts.
        codes_RM: K images per prompt; the images of one prompt are consecutive.
        recipe: Distribution that the images were sampled from; ``None`` is the plain one.

    Raises:
        ValueError: The number of images is not a multiple of the number of prompts, or the recipe is greedy.
    """
    guided, images = scored_recipe(recipe).cfg != 1, prompt.images_each(codes_RM)
    ids_PL, mask_PL = prompt.to_prefill(guided)
    text_PLD = net.model.language_model.embed_tokens(ids_PL)
    # the last code is predicted but is no input
    image_RMD = net.prepare_embeddings_for_image_generation(codes_RM[:, :-1])
    image_GMD = image_RMD.repeat(len(ids_PL) // len(prompt.ids_BL), 1, 1)
    hidden_GMD = image_states(net.model.language_model, mask_PL, text_PLD, image_GMD, images)
    n_codes = net.config.vq_config.num_embeddings
    return code_logps(net.model.generation_head, hidden_GMD, codes_RM, n_codes, recipe=recipe)
