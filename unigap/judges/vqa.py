"""VQAScore: another model as the judge, any image-text-to-text model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass, joined
from unigap.judges.early_check import EarlyCheck
from unigap.models.base import Answers, UnifiedModel
from unigap.models.engine.image_reader import ImageReader
from unigap.models.engine.memory import in_fitting_batches
from unigap.models.files.load_options import PRECISIONS, check_device
from unigap.models.files.location import resolve
from unigap.records import Candidate

QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'


class VQAJudge(AnsweringJudge, EarlyCheck):
    """VQAScore: log-odds of "yes" against "no" as the first token of another model's answer.

    The checkpoint is checked before anything is sampled. Its weights are loaded when the first image is judged, from
    safetensors. Code in its folder is not run. It is not part of the trained model and not stored in checkpoints.
    Families that also take videos, such as Qwen2.5-VL, need torchvision for their processor:
    ``pip install 'unigap[vqa]'``.

    Args:
        checkpoint: Folder or hub id in transformers' layout, e.g. ``Qwen/Qwen2.5-VL-7B-Instruct``.
        question: The question, with a ``{prompt}`` in it.
        dtype: Precision of the weights: ``auto`` (the checkpoint's), ``float32`` or ``bfloat16``.
        device: Device of the judge, e.g. ``cuda:1``; empty means the device of the trained model.
        batch_size: Most images in one forward pass; halved whenever the device runs out of memory.
    """

    def __init__(
        self, checkpoint: str, question: str = QUESTION, dtype: str = "auto", device: str = "", batch_size: int = 16
    ) -> None:
        if "{prompt}" not in question:
            raise ValueError(f"question {question!r} has no {{prompt}} to put the prompt in")
        if dtype not in PRECISIONS:
            raise ValueError(f"unknown dtype {dtype!r}; choose one of: {', '.join(PRECISIONS)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        # fail before anything is sampled
        resolve(checkpoint)
        if device:
            check_device(device)
        self.checkpoint, self.question, self.dtype = checkpoint, question, dtype
        self.device, self.batch_size = device, batch_size
        self._reader: ImageReader | None = None

    @property
    def name(self) -> str:
        return f"vqa-{Path(self.checkpoint).resolve().name}"

    def check(self) -> None:
        if self._reader is None:
            ImageReader.check(self.checkpoint)

    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        texts = [candidate.prompt.text for candidate in candidates]
        return self._answers(texts, pixels_BCHW, self.device or str(next(model.parameters()).device))

    def ask(self, texts: Sequence[str], pixels_BCHW: torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """Return log-odds that each image shows its text, float32 (B,) on ``device``."""
        return self._answers(texts, pixels_BCHW, device).logit

    def _answers(self, texts: Sequence[str], pixels_BCHW: torch.Tensor, device: str) -> Answers:
        questions = [self.question.replace("{prompt}", text) for text in texts]
        if not questions:
            return joined([], pixels_BCHW)
        self._reader = self._reader or ImageReader(self.checkpoint, self.dtype)
        reader = self._reader.to(device)
        too_large = "one image with its question does not fit; choose a smaller judge, or free memory on the device"
        parts = in_fitting_batches(
            lambda batch: reader.answers(pixels_BCHW[batch], questions[batch]),
            len(questions),
            self.batch_size,
            too_large,
        )
        answers = joined(list(parts), pixels_BCHW)
        check_mass(self.name, answers.mass)
        return answers
