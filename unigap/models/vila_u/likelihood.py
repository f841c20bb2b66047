"""Log-likelihood of images under VILA-U: teacher forcing through the trunk, then through the depth transformer."""

from __future__ import annotations

import torch

from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.engine.autoregressive import code_logps, scored_recipe
from unigap.models.engine.shared_prompt import image_states
from unigap.models.vila_u.network import VilaUNetwork

# Shape legend: B prompts, P prompts read (B, or 2B with guidance: null prompts second), K images a prompt,
# R = B * K images, G = P * K rows, M positions of an image, D codes of a position, I = M * D codes of an image,
# C width of a code vector, H width of the trunk, E width of the depth transformer.


def image_logps(
    net: VilaUNetwork, prompt: PromptBatch, codes_RMD: torch.Tensor, recipe: SamplingRecipe | None = None
) -> torch.Tensor:
    """Return the log-probability of each code, position by position, float32 (R, I), in nats, differentiable.

    Args:
        net: The network.
        prompt: B prompts.
        codes_RMD: K images per prompt; the images of one prompt are consecutive.
        recipe: Distribution that the images were sampled from; ``None`` is the plain one.

    Raises:
        ValueError: The images have another shape, the number of images is not a multiple of the number of prompts, or
            the recipe is greedy.
    """
    guided, images = scored_recipe(recipe).cfg != 1, prompt.images_each(codes_RMD)
    if codes_RMD.shape[1:] != net.shape.code_shape:
        raise ValueError(f"images have shape {tuple(codes_RMD.shape[1:])}, VILA-U's codes {net.shape.code_shape}")
    ids_PL, mask_PL = prompt.to_prefill(guided)
    passes = len(ids_PL) // len(prompt.ids_BL)
    sums_RMDC = net.image_tokenizer.quantizer.sums(codes_RMD)
    # the last position is predicted but is no input
    image_GMH = net.mm_projector(sums_RMDC[:, :-1, -1]).repeat(passes, 1, 1)
    hidden_GMH = image_states(net.llm.model, mask_PL, net.embed(ids_PL), image_GMH, images)
    depth = net.depth_transformer
    sums_KDC = sums_RMDC.repeat(passes, 1, 1, 1).flatten(0, 1)
    state_GIE = depth.states(hidden_GMH.flatten(0, 1), sums_KDC).reshape(len(hidden_GMH), -1, depth.shape.width)
    return code_logps(depth.logits, state_GIE, codes_RMD.flatten(1), depth.shape.n_codes, recipe=recipe)
