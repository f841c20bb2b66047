"""Sampling candidates for prompts: one seed a candidate, batches bounded by memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unigap.console import tasks
from unigap.models.base import Samples, SamplingRecipe, UnifiedModel
from unigap.models.engine.memory import BatchLimit, in_fitting_batches, items_that_fit
from unigap.models.engine.precision import weights_cast_once
from unigap.records import Candidate, Prompt


@dataclass(frozen=True)
class SampledBatch:
    """Candidates and their images in the same order; ``pixels_BCHW`` in [-1, 1]."""

    candidates: list[Candidate]
    pixels_BCHW: torch.Tensor


def seed_of(run_seed: int, round: int, prompt_id: str, index: int) -> int:
    """Return a candidate's sampling seed in [0, 2**63); it does not depend on batch size, world size or restarts."""
    key = f"{run_seed}/{round}/{index}/{prompt_id}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1


def stack_drawings(candidates: Sequence[Candidate]) -> torch.Tensor:
    """Stack the drawings of candidates on the CPU, codes as int64 and latents as float32."""
    stored_B = torch.from_numpy(np.stack([candidate.drawing for candidate in candidates]))
    return stored_B.float() if stored_B.is_floating_point() else stored_B.long()


def sample_candidates(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    n: int,
    round: int,
    run_seed: int,
    recipe: SamplingRecipe,
    images_per_batch: int = 512,
    first: int = 0,
    behaviour: bool = False,
    limit: BatchLimit | None = None,
) -> Iterator[SampledBatch]:
    """Sample ``n`` candidates for each prompt, whole prompts at a time.

    Args:
        model: The model.
        prompts: The prompts.
        n: Candidates for each prompt.
        round: Number of the round, part of every seed.
        run_seed: Seed of the run, part of every seed.
        recipe: Temperature, guidance and filters.
        images_per_batch: Most images in one batch, at least the candidates of one prompt; fewer if the device lacks
            the memory.
        first: Index of the first candidate of each prompt; earlier ones exist already.
        behaviour: Keep the log-probability of each token under ``recipe``.
        limit: Remembers how many prompts fit, for callers that sample in several calls.

    Yields:
        The candidates of a batch of prompts, prompt by prompt.

    Raises:
        ValueError: For ``n`` or ``images_per_batch`` below 1, for prompts the model cannot read, and when the memory
            does not hold one prompt's worth.
    """
    if n < 1:
        raise ValueError(f"candidates per prompt must be >= 1, got {n}")
    if images_per_batch < 1:
        raise ValueError(f"images_per_batch must be >= 1, got {images_per_batch}")

    def draw(batch: slice) -> SampledBatch:
        with tasks.part("sampling", n * (batch.stop - batch.start)):
            return _draw_batch(model, prompts[batch], range(first, first + n), round, run_seed, recipe, behaviour)

    images = min(images_per_batch, items_that_fit(model, model.drawing_bytes(recipe)))
    too_large = f"{n} candidates of one prompt do not fit; draw fewer candidates, or free memory on the device"
    yield from in_fitting_batches(draw, len(prompts), max(1, images // n), too_large, limit)


def _draw_batch(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    indices: range,
    round: int,
    run_seed: int,
    recipe: SamplingRecipe,
    behaviour: bool,
) -> SampledBatch:
    seeds = [[seed_of(run_seed, round, prompt.id, index) for index in indices] for prompt in prompts]
    encoded = model.encode_prompt([prompt.text for prompt in prompts])
    with weights_cast_once(encoded.ids_BL.device.type):
        samples = model.sample_images(encoded, torch.tensor(seeds), recipe)
    drawings_R = samples.drawings_BN.flatten(0, 1)
    stored = model.storable(drawings_R).numpy()
    logp_BNM = samples.logp_BNM
    logps = [None] * len(stored) if logp_BNM is None else logp_BNM.double().sum(-1).flatten().tolist()
    acted = _behaviours(samples) if behaviour else [None] * len(stored)
    drawn = zip(itertools.chain(*seeds), stored, logps, acted, strict=True)
    asked = itertools.product(prompts, indices)
    candidates = [Candidate(prompt, round, index, *row) for (prompt, index), row in zip(asked, drawn, strict=True)]
    # judges see what the pool holds
    return SampledBatch(candidates, _decoded(model, stack_drawings(candidates).to(drawings_R.device)))


def _behaviours(samples: Samples) -> Sequence[np.ndarray]:
    if samples.behaviour_BNM is None:
        raise ValueError(
            "the model gives no log-probabilities under its sampling recipe (Samples.behaviour_BNM), which this "
            "objective needs; take another objective"
        )
    acted_RM: np.ndarray = samples.behaviour_BNM.flatten(0, 1).float().cpu().numpy()
    return list(acted_RM)


def _decoded(model: UnifiedModel, drawings_R: torch.Tensor) -> torch.Tensor:
    """Decode drawings, in parts if the memory lacks room for all: sampling them again would cost far more."""
    too_large = "one image cannot be decoded; free memory on the device"
    parts = in_fitting_batches(
        lambda batch: model.decode(drawings_R[batch]), len(drawings_R), len(drawings_R), too_large
    )
    return torch.cat(list(parts))
