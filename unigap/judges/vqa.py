"""Another model as judge: any of transformers' image-text-to-text models, asked as VQAScore asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass, joined
from unigap.models.base import Answers, UnifiedModel
from unigap.models.engine.image_reader import ImageReader
from unigap.models.engine.memory import in_fitting_batches
from unigap.models.files.load_options import PRECISIONS, check_device
from unigap.models.files.location import resolve
from unigap.records import Candidate

QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'


class VQAJudge(AnsweringJudge):
    """VQAScore: the log-odds of "yes" over "no" as the first word of another model's answer.

    The model is loaded when the first drawing is judged, from safetensors and without code of its own, and is no part
    of the model that is trained: checkpoints do not hold it. Families that also read videos, Qwen2.5-VL among them,
    need torchvision for their processor, which ``pip install 'unigap[vqa]'`` brings along.

    Args:
        checkpoint: Folder or hub id in transformers' layout, e.g. ``Qwen/Qwen2.5-VL-7B-Instruct``.
        question: What is asked, with a ``{prompt}`` in it.
        dtype: Precision of the weights: ``auto`` is that of the checkpoint; ``float32``, ``bfloat16``.
        device: Where it runs, e.g. ``cuda:1``; empty is where the model runs whose drawings it judges.
        batch_size: Most images in one forward pass; fewer where the device has no memory for so many.
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
        # a mistake shows before anything is drawn
        resolve(checkpoint)
        if device:
            check_device(device)
        self.checkpoint, self.question, self.dtype = checkpoint, question, dtype
        self.device, self.batch_size = device, batch_size
        self._reader: ImageReader | None = None

    @property
    def name(self) -> str:
        return f"vqa-{Path(self.checkpoint).resolve().name}"

    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        texts = [candidate.prompt.text for candidate in candidates]
        return self._answers(texts, pixels_BCHW, self.device or str(next(model.parameters()).device))

    def ask(self, texts: Sequence[str], pixels_BCHW: torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """Log-odds that each image shows its text, float32 (B,) on ``device``."""
        return self._answers(texts, pixels_BCHW, device).logit

    def _answers(self, texts: Sequence[str], pixels_BCHW: torch.Tensor, device: str) -> Answers:
        asked = [self.question.replace("{prompt}", text) for text in texts]
        if not asked:
            return joined([], pixels_BCHW)
        self._reader = self._reader or ImageReader(self.checkpoint, self.dtype)
        reader = self._reader.to(device)
        too_large = "one image with its question does not fit; choose a smaller judge, or free memory on the device"
        parts = in_fitting_batches(
            lambda batch: reader.answers(pixels_BCHW[batch], asked[batch]), len(asked), self.batch_size, too_large
        )
        found = joined(list(parts), pixels_BCHW)
        check_mass(self.name, found.mass)
        return found
