"""Import images from elsewhere into a pool: encode them, judge what the tokenizer kept, store them as a round."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image, ImageOps

from unigap.console import tasks
from unigap.estimate import Estimate
from unigap.files.images import check_side, to_pixels
from unigap.judges import Judge, judge_recipes
from unigap.judges.base import CERTAIN
from unigap.loop.judging import judge_samples
from unigap.loop.plan import SELECTS
from unigap.loop.sampling import SampledBatch, stack_drawings
from unigap.metrics.intervals import wilson
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.own_images.sources import SourceImage
from unigap.pool import Pool
from unigap.prompt_sets.rows import distinct
from unigap.records import Candidate, Prompt

# Shape legend: B images, C H W channels and sides.

Shape = Literal["crop", "pad"]
IMPORTED = "imported"
"""Key of the recipe of a round that was imported instead of sampled."""
NO_SEED = 0
"""Seed of imported candidates, which no sampler made."""
BATCH = 16
"""Images encoded between two writes."""


@dataclass(frozen=True)
class PlacedImage:
    """An image of the source at its place in the pool.

    Attributes:
        image: The image.
        prompt: The prompt of its caption.
        index: Number of the candidate among those of this prompt.
    """

    image: SourceImage
    prompt: Prompt
    index: int

    @property
    def id(self) -> str:
        """Name of the candidate."""
        return f"{self.prompt.id}@0.{self.index}"


@dataclass(frozen=True)
class RoundTrip:
    """What encoding and decoding cost.

    Attributes:
        levels: Mean absolute error of a colour channel, in levels of 0 to 255.
        psnr: Peak signal-to-noise ratio over all images, in dB.
        lost: Share of the images, of those that the judge accepts as they are, that it rejects after the round trip.
        n: Images measured.
    """

    levels: float
    psnr: float
    lost: Estimate
    n: int


@dataclass(frozen=True)
class ImportPlan:
    """How images are imported.

    Attributes:
        judge: The judge that is asked about the decoded images, the model's own.
        judge_name: Name under which the source's verdicts are stored.
        side: Pixels per side of the model's images.
        shape: ``crop`` keeps the middle square of an image that is not square; ``pad`` adds grey borders.

    Raises:
        ValueError: The name is empty or the judge's, or the side or the shape is wrong.
    """

    judge: Judge
    judge_name: str
    side: int
    shape: Shape

    def __post_init__(self) -> None:
        check_side(self.side)
        check_judge_name(self.judge_name, self.judge)

    def recipe(self, model: UnifiedModel, images: Sequence[SourceImage]) -> dict[str, Any]:
        """Return everything that the round depends on, as the pool stores it."""
        listed = [(image.caption, image.name, image.right, image.pair) for image in images]
        source = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        how = {"images": len(images), "source": source, "side": self.side, "shape": self.shape}
        return {
            IMPORTED: how,
            "judges": judge_recipes([self.judge]),
            SELECTS: self.judge_name,
            "weights": model.weights_digest(),
        }

    def pixels(self, images: Sequence[PlacedImage]) -> torch.Tensor:
        """Read images as float32 pixels (B, 3, side, side) in [-1, 1]."""
        return torch.stack([to_pixels(self._square(placed.image.read()), self.side) for placed in images])

    def _square(self, image: Image.Image) -> Image.Image:
        return ImageOps.fit(image, (self.side, self.side)) if self.shape == "crop" else image


def check_judge_name(name: str, judge: Judge) -> None:
    """Check the name of the source's verdicts.

    Raises:
        ValueError: It is empty, or the name of ``judge``, whose verdicts are stored too.
    """
    if not name.strip() or name == judge.name:
        raise ValueError(f"judge_name {name!r} is empty or that of the model's own judge; choose another, e.g. human")


def place_images(images: Sequence[SourceImage], named: str) -> list[PlacedImage]:
    """Give each image its prompt and index: one prompt for each caption, and for each preference pair.

    A caption of several pairs gives several prompts, ``CAPTION``, ``CAPTION #2`` and so on: pairs stay whole.

    Raises:
        ValueError: A caption cannot be a prompt.
    """
    prompts: dict[tuple[str, int | None], Prompt] = {}
    pairs: dict[str, int] = {}
    counts: dict[str, int] = {}
    found = []
    for image in images:
        key = (image.caption, image.pair)
        if key not in prompts:
            number = pairs[image.caption] = pairs.get(image.caption, 0) + 1
            name = image.caption if number == 1 else f"{image.caption} #{number}"
            prompts[key] = Prompt(name, image.caption)
        prompt = prompts[key]
        index = counts[prompt.id] = counts.get(prompt.id, -1) + 1
        found.append(PlacedImage(image, prompt, index))
    distinct([(f"{named}, caption {prompt.text[:40]!r}", prompt) for prompt in prompts.values()], named)
    return found


def prompts_of(images: Sequence[PlacedImage]) -> list[Prompt]:
    """Return the prompts of placed images, each once, in order."""
    return list({placed.prompt.id: placed.prompt for placed in images}.values())


def side_of(model: UnifiedModel, prompt: Prompt) -> int:
    """Return the pixels per side of the images that a model samples, by sampling one.

    Raises:
        ValueError: They are not square, or the model's ``encode`` gives other drawings than its ``sample_images``.
    """
    with tasks.task("sampling", "one image, for its size"):
        encoded = model.encode_prompt([prompt.text])
        drawing_BN = model.sample_images(encoded, torch.zeros(1, 1, dtype=torch.int64), SamplingRecipe()).drawings_BN
        pixels_BCHW = model.decode(drawing_BN.flatten(0, 1))
        again_B = model.encode(pixels_BCHW)
    height, width = pixels_BCHW.shape[-2:]
    if height != width or again_B.shape[1:] != drawing_BN.shape[2:]:
        raise ValueError(
            f"{type(model).__name__} samples images of {width} x {height} pixels in {tuple(drawing_BN.shape[2:])} and "
            f"encodes them to {tuple(again_B.shape[1:])}; only square images of one size can be imported"
        )
    return int(height)


@torch.no_grad()
def import_images(model: UnifiedModel, images: Sequence[PlacedImage], pool: Pool, plan: ImportPlan) -> None:
    """Store images as round 0 of a pool, with the model's own verdicts and, under their name, those of the source.

    A killed import continues from its stored shards.

    Raises:
        ValueError: The pool holds another round 0, a caption cannot be read by the model, or an image is damaged.
    """
    recipe = plan.recipe(model, [image.image for image in images])
    prompts = prompts_of(images)
    if pool.rounds:
        if pool.recipe(0) != recipe:
            raise ValueError(f"pool {pool.folder} holds another round already; give --out a new folder")
    else:
        for start in range(0, len(prompts), 256):
            model.encode_prompt([prompt.text for prompt in prompts[start : start + 256]])
        _write_round(model, images, pool, plan, recipe)
    pool.annotate(plan.judge_name, {image.id: CERTAIN if image.image.right else -CERTAIN for image in images})


def _write_round(
    model: UnifiedModel, images: Sequence[PlacedImage], pool: Pool, plan: ImportPlan, recipe: dict[str, Any]
) -> None:
    writer = pool.writer(0, recipe)
    done = writer.done()
    missing = [image for image in images if (image.prompt.id, image.index) not in done]
    with tasks.task("importing", "import", len(missing), "image") as task:
        for start in range(0, len(missing), BATCH):
            sampled = _encoded(model, missing[start : start + BATCH], plan)
            writer.write(sampled.candidates, judge_samples(model, sampled, [plan.judge]))
            task.advance(len(sampled.candidates))
    with tasks.task("storing", "storing round 0"):
        writer.commit(prompts_of(images))


def _encoded(model: UnifiedModel, images: Sequence[PlacedImage], plan: ImportPlan) -> SampledBatch:
    """Encode images; return the candidates with their decoded pixels, which training and judges see."""
    device = next(model.parameters()).device
    drawings = model.storable(model.encode(plan.pixels(images).to(device))).numpy()
    rows = zip(images, drawings, strict=True)
    candidates = [Candidate(image.prompt, 0, image.index, NO_SEED, drawing, None) for image, drawing in rows]
    return SampledBatch(candidates, model.decode(stack_drawings(candidates).to(device)))


@torch.no_grad()
def round_trip(model: UnifiedModel, images: Sequence[PlacedImage], plan: ImportPlan, most: int) -> RoundTrip:
    """Measure what encoding and decoding cost, on up to ``most`` images spread over the source.

    Only images that the source calls right are measured; with others the judge should say no before and after.
    """
    right = [image for image in images if image.image.right]
    step = max(1, math.ceil(len(right) / most))
    chosen = right[::step]
    device = next(model.parameters()).device
    absolute, squared, pairs = [], [], []
    with tasks.task("measuring", "round trip", len(chosen), "image") as task:
        for start in range(0, len(chosen), BATCH):
            after = _encoded(model, chosen[start : start + BATCH], plan)
            before = SampledBatch(after.candidates, plan.pixels(chosen[start : start + BATCH]).to(device))
            error_B = (before.pixels_BCHW - after.pixels_BCHW.clamp(-1, 1)).flatten(1) * 127.5
            absolute += error_B.abs().mean(1).tolist()
            squared += error_B.square().mean(1).tolist()
            said = [[row.logit >= 0 for row in judge_samples(model, seen, [plan.judge])] for seen in (before, after)]
            pairs += list(zip(*said, strict=True))
            task.advance(len(after.candidates))
    accepted = [after for before, after in pairs if before]
    mean = sum(squared) / len(squared) if squared else math.nan
    psnr = math.inf if mean == 0 else 10 * math.log10(255**2 / mean)
    levels = sum(absolute) / len(absolute) if absolute else math.nan
    return RoundTrip(levels, psnr, wilson(accepted.count(False), len(accepted)), len(chosen))
