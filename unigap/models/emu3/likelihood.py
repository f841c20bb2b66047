"""Log-likelihood of images under Emu3: teacher forcing over the image codes, with forced ends of lines."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.autoregressive import code_logps, scored_recipe
from unigap.models.engine.shared_prompt import image_states

# Shape legend: B prompts, P prompts read (B, or 2B with guidance: null prompts second), K images a prompt,
# R = B * K images, G = P * K rows, M codes of an image, I input tokens of an image, L prompt tokens, D hidden width.


def image_logps(
    net: Any,
    layout: ImageTokens,
    prompt: PromptBatch,
    codes_RM: torch.Tensor,
    recipe: SamplingRecipe | None = None,
) -> torch.Tensor:
    """Return the log-probability of each image code among all image codes, float32 (R, M), in nats, differentiable.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``.
        layout: Token ids and line layout of an image.
        prompt: B prompts.
        codes_RM: K images per prompt; the images of one prompt are consecutive.
        recipe: Distribution that the images were sampled from; ``None`` is the plain one.

    Raises:
        ValueError: The number of images is not a multiple of the number of prompts, or the recipe is greedy.
    """
    guided, images, embed = (
        scored_recipe(recipe).cfg != 1,
        prompt.images_each(codes_RM),
        net.model.text_model.embed_tokens,
    )
    ids_PL, mask_PL = prompt.to_prefill(guided)
    # the last code is predicted, so it and its end-of-line token are no input
    image_RID = embed(layout.to_ids(codes_RM)[:, :-2])
    image_GID = image_RID.repeat(len(ids_PL) // len(prompt.ids_BL), 1, 1)
    hidden_GID = image_states(net.model.text_model, mask_PL, embed(ids_PL), image_GID, images)
    head = partial(layout.code_logits, net.lm_head)
    return code_logps(head, hidden_GID[:, layout.position_M], codes_RM, layout.n_codes, recipe=recipe)
