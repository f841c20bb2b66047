"""How likely an Emu3 finds given images: teacher forcing over the image codes, line ends given."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from unigap.models.base import PromptBatch
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.engine.autoregressive import code_logps
from unigap.models.engine.shared_prompt import image_states

# Shape legend: B prompts, K images a prompt, R = B * K images, M image codes of one, I tokens of one that are read,
# L prompt tokens, D hidden width.


def image_logps(net: Any, words: ImageTokens, prompt: PromptBatch, codes_RM: torch.Tensor) -> torch.Tensor:
    """Log-probability of each image code among all image codes, float32 (R, M), differentiable.

    Args:
        net: transformers' ``Emu3ForConditionalGeneration``.
        words: How it writes images.
        prompt: B prompts.
        codes_RM: K images of each, those of one prompt side by side.

    Raises:
        ValueError: When the images do not fall to the prompts evenly.
    """
    images, embed = prompt.images_each(codes_RM), net.model.text_model.embed_tokens
    # the last code is predicted, never read, and the end of its line is neither
    image_RID = embed(words.written(codes_RM)[:, :-2])
    hidden_RID = image_states(net.model.text_model, prompt.mask_BL, embed(prompt.ids_BL), image_RID, images)
    head = partial(words.code_logits, net.lm_head)
    return code_logps(head, hidden_RID[:, words.place_M], codes_RM, words.n_codes)
