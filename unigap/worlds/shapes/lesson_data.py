"""Data of the pretraining: a seeded sequence of batches; each batch depends only on the seed and its number."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from unigap.loop.progress import batches_behind, batches_trained
from unigap.seeds import seed_of_part
from unigap.worlds.shapes.grammar import CATEGORIES, Description
from unigap.worlds.shapes.lessons import EVEN, Lesson, cell_labels, crowd, make_lesson, pictures, wrong_caption

JUDGING = tuple(3.0 if category == "spatial" else 1.0 for category in CATEGORIES)
"""Relative frequency of the categories in the judging phase: relations are learned last, so they come more often."""


@dataclass(frozen=True)
class CrowdBatch:
    """Crowded scenes for the image tokenizer: pixels (B, 3, 32, 32) in [-1, 1] and cell labels (B, 16, 3)."""

    pixels_BCHW: torch.Tensor
    labels_BK3: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CrowdBatch:
        """Return the batch on another device; Lightning calls this method."""
        return CrowdBatch(self.pixels_BCHW.to(device), self.labels_BK3.to(device))


@dataclass(frozen=True)
class LessonBatch:
    """Lessons for the language model and their images (B, 3, 32, 32) in [-1, 1].

    With ``drawing`` the model trains generation, captions and judging; without, only judging.

    Attributes:
        prompts: For each lesson, the prompts whose training target its image is; some may be wrong.
        questioned: Number of lessons, the first ones, that the model is questioned about; their answers are right.
    """

    lessons: tuple[Lesson, ...]
    pixels_BCHW: torch.Tensor
    prompts: tuple[tuple[Description, ...], ...]
    questioned: int
    drawing: bool = True

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LessonBatch:
        """Return the batch on another device."""
        return replace(self, pixels_BCHW=self.pixels_BCHW.to(device))


def crowd_batch(rng: random.Random, size: int) -> CrowdBatch:
    """Sample crowded scenes."""
    scenes = [crowd(rng) for _ in range(size)]
    return CrowdBatch(pictures(scenes), torch.stack([cell_labels(scene) for scene in scenes]))


def lesson_batch(
    rng: random.Random, size: int, drawing: bool = True, noise: float = 0.0, questioned: float = 1.0
) -> LessonBatch:
    """Sample lessons of the pretraining split.

    Args:
        rng: Random generator. The lessons do not depend on ``noise`` and ``questioned``.
        size: Number of lessons.
        drawing: Whether the lessons train generation.
        noise: Share of wrong prompts in the training of generation, in [0, 1].
        questioned: Share of the lessons that the model is questioned about, in (0, 1].
    """
    lessons = tuple(make_lesson(rng, weights=EVEN if drawing else JUDGING) for _ in range(size))
    prompts = tuple(
        tuple(wrong_caption(d, lesson.scene, rng) if noise and rng.random() < noise else d for d in lesson.captions)
        for lesson in lessons
    )
    images = pictures([lesson.scene for lesson in lessons])
    return LessonBatch(lessons, images, prompts, max(1, round(questioned * size)), drawing)


class _Lessons(Dataset[CrowdBatch | LessonBatch]):
    def __init__(self, data: ShapesLessons) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, step: int) -> CrowdBatch | LessonBatch:
        rng = random.Random(f"{self.data.seed}/{step}")
        tokenizing, drawing, judging, _ = itertools.accumulate(self.data.phases)
        if step < tokenizing:
            return crowd_batch(rng, self.data.tokenizer_batch)
        if drawing <= step < judging:
            return lesson_batch(rng, self.data.trunk_batch, drawing=False)
        return lesson_batch(rng, self.data.trunk_batch, True, self.data.caption_noise, self.data.questioned_share)


class _Remaining(Sampler[int]):
    """Batch numbers: from ``start`` in the first epoch, all in later ones. The length is always that of all batches."""

    def __init__(self, steps: int, start: int) -> None:
        self.steps, self.start = steps, start

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        return iter(range(start, self.steps))


class ShapesLessons(LightningDataModule):
    """Pretraining batches of the embedded world: crowded scenes for the image tokenizer, then lessons for the LLM.

    Args:
        tokenizer_steps: Batches of the first phase, which trains the image tokenizer; 0 keeps that of the model.
        trunk_steps: Batches of the second phase, which trains generation, captions and judging.
        judging_steps: Batches of the third phase, which trains only judging; the model forgets most of its generation.
        recall_steps: Batches of the last phase, which trains generation again, with judging.
        tokenizer_batch: Images per batch in the first phase, >= 1.
        trunk_batch: Lessons per batch in the other phases, >= 1.
        caption_noise: Share of captions with a wrong attribute, count or relation, in [0, 1], where generation is
            trained, as in captions from the web. Answers to questions and the captions that the model writes are right.
        questioned_share: Share of the lessons of a batch, in (0, 1], that the model is questioned about where
            generation is trained too.
        seed: Seed of all batches; batch k of a seed is always the same. Null follows the run's seed.
    """

    def __init__(
        self,
        tokenizer_steps: int = 3400,
        trunk_steps: int = 4500,
        judging_steps: int = 3000,
        recall_steps: int = 100,
        tokenizer_batch: int = 16,
        trunk_batch: int = 32,
        caption_noise: float = 0.0,
        questioned_share: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("tokenizer_batch", tokenizer_batch), ("trunk_batch", trunk_batch)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.phases = (tokenizer_steps, trunk_steps, judging_steps, recall_steps)
        if trunk_steps < 1 or min(self.phases) < 0:
            raise ValueError(
                "trunk_steps must be >= 1, tokenizer_steps, judging_steps and recall_steps >= 0, "
                f"got {', '.join(map(str, self.phases))}"
            )
        if not 0 <= caption_noise <= 1:
            raise ValueError(f"caption_noise must be in [0, 1], got {caption_noise}")
        if not 0 < questioned_share <= 1:
            raise ValueError(f"questioned_share must be in (0, 1], got {questioned_share}")
        self.tokenizer_batch, self.trunk_batch = tokenizer_batch, trunk_batch
        self.caption_noise, self.questioned_share = caption_noise, questioned_share
        self.seed = seed_of_part("lessons", seed)

    def __len__(self) -> int:
        return sum(self.phases)

    def train_dataloader(self) -> DataLoader[CrowdBatch | LessonBatch]:
        """Return the batches in order, made when they are needed."""
        return DataLoader(_Lessons(self), batch_size=None, sampler=_Remaining(len(self), batches_behind(self.trainer)))

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches trained on in the current epoch."""
        return {"batches": batches_trained(self.trainer)}
