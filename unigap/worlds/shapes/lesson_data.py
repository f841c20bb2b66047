"""Data of the pretraining: a seeded sequence of batches; each batch depends only on the seed and its number."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from unigap.loop.progress import batches_behind, batches_trained
from unigap.seeds import seed_of_part
from unigap.worlds.shapes.grammar import Description
from unigap.worlds.shapes.lessons import Lesson, cell_labels, crowd, make_lesson, pictures, wrong_caption


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

    Attributes:
        prompts: For each lesson, the prompts whose training target its image is; some may be wrong.
        questioned: Number of lessons, the first ones, that the model is questioned about; their answers are right.
    """

    lessons: tuple[Lesson, ...]
    pixels_BCHW: torch.Tensor
    prompts: tuple[tuple[Description, ...], ...]
    questioned: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LessonBatch:
        """Return the batch on another device."""
        return replace(self, pixels_BCHW=self.pixels_BCHW.to(device))


def crowd_batch(rng: random.Random, size: int) -> CrowdBatch:
    """Sample crowded scenes."""
    scenes = [crowd(rng) for _ in range(size)]
    return CrowdBatch(pictures(scenes), torch.stack([cell_labels(scene) for scene in scenes]))


def lesson_batch(rng: random.Random, size: int, noise: float = 0.0, questioned: float = 1.0) -> LessonBatch:
    """Sample lessons of the pretraining split.

    Args:
        rng: Random generator. The lessons do not depend on ``noise`` and ``questioned``.
        size: Number of lessons.
        noise: Share of wrong prompts in the training of generation, in [0, 1].
        questioned: Share of the lessons that the model is questioned about, in (0, 1].
    """
    lessons = tuple(make_lesson(rng) for _ in range(size))
    prompts = tuple(
        tuple(wrong_caption(d, lesson.scene, rng) if noise and rng.random() < noise else d for d in lesson.captions)
        for lesson in lessons
    )
    return LessonBatch(
        lessons, pictures([lesson.scene for lesson in lessons]), prompts, max(1, round(questioned * size))
    )


class _Lessons(Dataset[CrowdBatch | LessonBatch]):
    def __init__(self, data: ShapesLessons) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, step: int) -> CrowdBatch | LessonBatch:
        rng = random.Random(f"{self.data.seed}/{step}")
        if step < self.data.tokenizer_steps:
            return crowd_batch(rng, self.data.tokenizer_batch)
        instructing = step >= len(self.data) - self.data.instruct_steps
        share = 1.0 if instructing else self.data.questioned_share
        return lesson_batch(rng, self.data.trunk_batch, self.data.caption_noise, share)


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

    Drawing is learned from captions of which some are wrong, judging from right answers about fewer images: so the
    model judges better than it draws, as models do that were pretrained on the web.

    Args:
        tokenizer_steps: Batches of the first phase, which trains the image tokenizer; 0 keeps that of the model.
        trunk_steps: Batches of the second phase, which trains generation, captions and judging.
        tokenizer_batch: Images per batch in the first phase, >= 1.
        trunk_batch: Lessons per batch in the second phase, >= 1.
        caption_noise: Share of prompts with a wrong attribute, count or relation, in [0, 1]. Answers to questions and
            the captions that the model writes are right.
        questioned_share: Share of the lessons of a batch, in (0, 1], that the model is questioned about.
        instruct_steps: The last batches of the second phase, or all if there are fewer, in which the model is
            questioned about every lesson. It learns to draw in them as before.
        seed: Seed of all batches; batch k of a seed is always the same. Null follows the run's seed.
    """

    def __init__(
        self,
        tokenizer_steps: int = 3400,
        trunk_steps: int = 4400,
        tokenizer_batch: int = 16,
        trunk_batch: int = 32,
        caption_noise: float = 0.35,
        questioned_share: float = 0.25,
        instruct_steps: int = 1600,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("tokenizer_steps", tokenizer_steps, 0),
            ("trunk_steps", trunk_steps, 1),
            ("tokenizer_batch", tokenizer_batch, 1),
            ("trunk_batch", trunk_batch, 1),
            ("instruct_steps", instruct_steps, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        self.tokenizer_steps, self.trunk_steps = tokenizer_steps, trunk_steps
        if not 0 <= caption_noise <= 1:
            raise ValueError(f"caption_noise must be in [0, 1], got {caption_noise}")
        if not 0 < questioned_share <= 1:
            raise ValueError(f"questioned_share must be in (0, 1], got {questioned_share}")
        self.instruct_steps = instruct_steps
        self.tokenizer_batch, self.trunk_batch = tokenizer_batch, trunk_batch
        self.caption_noise, self.questioned_share = caption_noise, questioned_share
        self.seed = seed_of_part("lessons", seed)

    def __len__(self) -> int:
        return self.tokenizer_steps + self.trunk_steps

    def train_dataloader(self) -> DataLoader[CrowdBatch | LessonBatch]:
        """Return the batches in order, made when they are needed."""
        return DataLoader(_Lessons(self), batch_size=None, sampler=_Remaining(len(self), batches_behind(self.trainer)))

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches trained on in the current epoch."""
        return {"batches": batches_trained(self.trainer)}
