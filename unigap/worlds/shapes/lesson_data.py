"""The data of pretraining: an endless, seeded stream of lessons, each batch a function of its number alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from unigap.loop.progress import batches_behind, batches_trained
from unigap.seeds import seed_of_part
from unigap.worlds.shapes.grammar import CATEGORIES
from unigap.worlds.shapes.lessons import EVEN, Lesson, crowd, looks, make_lesson, pictures

JUDGING = tuple(3.0 if category == "spatial" else 1.0 for category in CATEGORIES)
"""How often each category comes where only judging is taught: relations are learned last."""


@dataclass(frozen=True)
class CrowdBatch:
    """Crowded scenes for the image tokenizer: pixels (B, 3, 32, 32) in [-1, 1] and looks of the cells (B, 16, 3)."""

    pixels_BCHW: torch.Tensor
    looks_BK3: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CrowdBatch:
        """The batch on another device (Lightning moves objects that have this method)."""
        return CrowdBatch(self.pixels_BCHW.to(device), self.looks_BK3.to(device))


@dataclass(frozen=True)
class LessonBatch:
    """Lessons for the language model and their pictures (B, 3, 32, 32) in [-1, 1].

    With ``drawing`` it learns to draw and describe them too, without only to judge statements about them.
    """

    lessons: tuple[Lesson, ...]
    pixels_BCHW: torch.Tensor
    drawing: bool = True

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LessonBatch:
        """The batch on another device."""
        return LessonBatch(self.lessons, self.pixels_BCHW.to(device), self.drawing)


def crowd_batch(rng: random.Random, size: int) -> CrowdBatch:
    """Random crowded scenes."""
    scenes = [crowd(rng) for _ in range(size)]
    return CrowdBatch(pictures(scenes), torch.stack([looks(scene) for scene in scenes]))


def lesson_batch(rng: random.Random, size: int, drawing: bool = True) -> LessonBatch:
    """Random lessons of the pretraining split."""
    lessons = tuple(make_lesson(rng, weights=EVEN if drawing else JUDGING) for _ in range(size))
    return LessonBatch(lessons, pictures([lesson.scene for lesson in lessons]), drawing)


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
        return lesson_batch(rng, self.data.trunk_batch, drawing=not drawing <= step < judging)


class _Remaining(Sampler[int]):
    """Numbers of the batches from ``start`` on, later of all; its length is that of all, which Lightning counts by."""

    def __init__(self, steps: int, start: int) -> None:
        self.steps, self.start = steps, start

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        return iter(range(start, self.steps))


class ShapesLessons(LightningDataModule):
    """Pretraining batches of the embedded world: crowds for the image tokenizer, then lessons for the LLM.

    Args:
        tokenizer_steps: Batches of the first phase.
        trunk_steps: Batches of the second phase, in which the LLM learns to draw, to describe and to judge.
        judging_steps: Batches of the third phase, in which it learns to judge alone, and forgets most of its drawing.
        recall_steps: Batches of the last phase, in which some of the drawing comes back, beside judging.
        tokenizer_batch: Pictures a batch in the first phase.
        trunk_batch: Lessons a batch in the others.
        seed: Names the stream; batch k of a seed is always the same. Null follows the run's seed.
    """

    def __init__(
        self,
        tokenizer_steps: int = 3400,
        trunk_steps: int = 4500,
        judging_steps: int = 3000,
        recall_steps: int = 100,
        tokenizer_batch: int = 16,
        trunk_batch: int = 32,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("tokenizer_batch", tokenizer_batch), ("trunk_batch", trunk_batch)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.phases = (tokenizer_steps, trunk_steps, judging_steps, recall_steps)
        if min(tokenizer_steps, trunk_steps) < 1 or min(judging_steps, recall_steps) < 0:
            raise ValueError(
                "tokenizer_steps and trunk_steps must be >= 1, judging_steps and recall_steps >= 0, "
                f"got {', '.join(map(str, self.phases))}"
            )
        self.tokenizer_batch, self.trunk_batch = tokenizer_batch, trunk_batch
        self.seed = seed_of_part("lessons", seed)

    def __len__(self) -> int:
        return sum(self.phases)

    def train_dataloader(self) -> DataLoader[CrowdBatch | LessonBatch]:
        """Batches in order, made as they are asked for."""
        return DataLoader(_Lessons(self), batch_size=None, sampler=_Remaining(len(self), batches_behind(self.trainer)))

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch begun last were trained on."""
        return {"batches": batches_trained(self.trainer)}
