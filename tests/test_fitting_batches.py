"""Batches that do not fit the memory: what is drawn is kept, and the size that fits is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unigap.loop import references, sampling
from unigap.loop.references import image_likelihoods
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.models.engine.autoregressive import invert_cdf
from unigap.models.engine.memory import in_fitting_batches
from unigap.models.janus import Janus
from unigap.records import Prompt

PROMPTS = [Prompt(text) for text in ("a red circle", "a blue square", "a green triangle", "six rings")]


def at_most(items: int, function: Callable[..., Any], sizes: list[int], place: int = 0) -> Callable[..., Any]:
    """``function`` on a device whose memory holds ``items`` rows of one argument; ``sizes`` records its calls."""

    def limited(*args: Any, **options: Any) -> Any:
        sizes.append(len(args[place]))
        if sizes[-1] > items:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*args, **options)

    return limited


def drawn(janus: Janus, images_per_batch: int = 8) -> list[Any]:
    batches = list(sample_candidates(janus, PROMPTS, 2, 0, 0, SamplingRecipe(cfg=2.0), images_per_batch))
    pixels = torch.cat([batch.pixels_BCHW for batch in batches])
    return [[candidate for batch in batches for candidate in batch.candidates], pixels]
