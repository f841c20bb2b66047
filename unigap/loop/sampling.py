"""Prompts and a model in, candidates out: seeds keyed by what is drawn, batches bounded by a budget."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine.memory import in_fitting_batches, items_that_fit
from unigap.records import Candidate, Prompt


@dataclass(frozen=True)
class Drawings:
    """Candidates and their pictures, in the same order; ``pixels_BCHW`` in [-1, 1]."""

    candidates: list[Candidate]
    pixels_BCHW: torch.Tensor


def seed_of(run_seed: int, round: int, prompt_id: str, index: int) -> int:
    """The sampling seed of a candidate, in [0, 2**63): the same whatever the batch size, world size or restart."""
    key = f"{run_seed}/{round}/{index}/{prompt_id}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1


def codes_of(candidates: Sequence[Candidate]) -> torch.Tensor:
    """Stack the image tokens of candidates, int64 (B, M), on the CPU."""
    return torch.from_numpy(np.stack([candidate.codes for candidate in candidates])).long()


def draw_candidates(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    n: int,
    round: int,
    run_seed: int,
    recipe: SamplingRecipe,
    images_per_batch: int = 512,
    first: int = 0,
) -> Iterator[Drawings]:
    """Draws ``n`` candidates for each prompt, whole prompts at a time.

    Args:
        model: Who draws.
        prompts: What is asked for.
        n: Candidates for each prompt.
        round: Number of the round, part of every seed.
        run_seed: Seed of the run, part of every seed.
        recipe: How tokens are drawn.
        images_per_batch: Most images in one batch (at least one prompt's worth is drawn at once); fewer where the
            device has no memory for so many.
        first: Index of the first candidate of each prompt: those before it were drawn already.

    Yields:
        The drawings of a batch of prompts, candidates of one prompt side by side.

    Raises:
        ValueError: For ``n`` or ``images_per_batch`` below 1, for prompts the model cannot read, and when the memory
            does not hold one prompt's worth.
    """
    if n < 1:
        raise ValueError(f"candidates per prompt must be >= 1, got {n}")
    if images_per_batch < 1:
        raise ValueError(f"images_per_batch must be >= 1, got {images_per_batch}")

    def draw(batch: slice) -> Drawings:
        return _draw_batch(model, prompts[batch], range(first, first + n), round, run_seed, recipe)

    images = min(images_per_batch, items_that_fit(model, model.drawing_bytes(recipe)))
    too_large = f"{n} candidates of one prompt do not fit; draw fewer candidates, or free memory on the device"
    yield from in_fitting_batches(draw, len(prompts), max(1, images // n), too_large)


def _draw_batch(
    model: UnifiedModel, prompts: Sequence[Prompt], indices: range, round: int, run_seed: int, recipe: SamplingRecipe
) -> Drawings:
    seeds = [[seed_of(run_seed, round, prompt.id, index) for index in indices] for prompt in prompts]
    encoded = model.encode_prompt([prompt.text for prompt in prompts])
    samples = model.sample_images(encoded, torch.tensor(seeds), recipe)
    codes_RM = samples.codes_BNM.flatten(0, 1)
    codes = codes_RM.to("cpu", torch.int32).numpy()
    drawn = zip(itertools.chain(*seeds), codes, samples.logp_BNM.double().sum(-1).flatten().tolist(), strict=True)
    asked = itertools.product(prompts, indices)
    candidates = [Candidate(prompt, round, index, *row) for (prompt, index), row in zip(asked, drawn, strict=True)]
    return Drawings(candidates, model.decode(codes_RM))
