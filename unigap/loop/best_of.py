"""Best of N: sample images for prompts, judge them, and keep the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image

from unigap.files.images import to_image
from unigap.judges import Judge, SelfJudge
from unigap.judges.base import check_immediate
from unigap.loop.judging import judge_samples
from unigap.loop.sampling import SampledBatch, sample_candidates
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.records import Candidate, Judgment, Prompt

IMAGES_PER_BATCH = 64
"""Images sampled between two results, so that a stopped command loses little work."""


@dataclass(frozen=True)
class JudgedImage:
    """A sampled image with its verdict.

    Attributes:
        candidate: The candidate: prompt, index, seed and drawing.
        judgment: The judge's verdict.
        image: The image.
    """

    candidate: Candidate
    judgment: Judgment
    image: Image.Image = field(repr=False, compare=False)


def best_of(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    n: int = 16,
    keep: int = 2,
    seed: int = 0,
    sampling: SamplingRecipe | None = None,
    judge: Judge | None = None,
) -> list[JudgedImage]:
    """Sample ``n`` images for each prompt and return the ``keep`` images that the judge accepts most surely.

    Args:
        model: The model, in eval mode.
        prompts: The prompts, with different ids.
        n: Images sampled for each prompt, >= 1.
        keep: Images returned for each prompt, in [1, n].
        seed: Seed of the command; an image depends on it, the prompt's id and the image's index only.
        sampling: Temperature, guidance and filters; None takes the guidance that the checkpoint recommends.
        judge: The judge; None asks the model itself.

    Returns:
        The kept images, prompt by prompt, those with the highest log-odds first.

    Raises:
        ValueError: ``n`` or ``keep`` is out of range, or the judge answers later.
    """
    check_numbers(n, keep)
    return [image for found in judged_images(model, prompts, n, seed, sampling, judge) for image in best(found, keep)]


def judged_images(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    n: int,
    seed: int = 0,
    sampling: SamplingRecipe | None = None,
    judge: Judge | None = None,
) -> Iterator[list[JudgedImage]]:
    """Sample and judge ``n`` images for each prompt; see `best_of`.

    Yields:
        All images of one prompt, by index; prompts in their order.
    """
    judge = judge or SelfJudge()
    check_immediate(judge)
    recipe = sampling or SamplingRecipe(cfg=model.usual_cfg)
    for sampled in sample_candidates(model, prompts, n, 0, seed, recipe, IMAGES_PER_BATCH):
        images = _judged(model, sampled, judge)
        for start in range(0, len(images), n):
            yield images[start : start + n]


def best(images: Sequence[JudgedImage], keep: int) -> list[JudgedImage]:
    """Return the ``keep`` images with the highest log-odds, highest first; of equal ones, the lower index."""
    return sorted(images, key=lambda image: (-image.judgment.logit, image.candidate.index))[:keep]


def check_numbers(n: int, keep: int) -> None:
    """Check the numbers of images to sample and to keep.

    Raises:
        ValueError: One is below 1, or ``keep`` is above ``n``.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    if not 1 <= keep <= n:
        raise ValueError(f"keep must be between 1 and n = {n}, got {keep}")


@torch.no_grad()
def _judged(model: UnifiedModel, sampled: SampledBatch, judge: Judge) -> list[JudgedImage]:
    judgments = judge_samples(model, sampled, [judge])
    rows = zip(sampled.candidates, judgments, sampled.pixels_BCHW, strict=True)
    return [JudgedImage(candidate, judgment, to_image(pixels)) for candidate, judgment, pixels in rows]
