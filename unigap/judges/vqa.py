"""VQAScore: another model as the judge, any image-text-to-text model of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from unigap.judges.answer_mass import check_mass, joined
from unigap.judges.asked import Chat, ExplainingJudge, Writing
from unigap.judges.described import Described
from unigap.judges.early_check import EarlyCheck
from unigap.models.base import Answers, UnifiedModel
from unigap.models.engine.image_reader import ImageReader
from unigap.models.engine.memory import BatchLimit, in_fitting_batches
from unigap.models.files.location import resolve
from unigap.models.files.placement import Placement
from unigap.records import Candidate

# Shape legend: B images, Q questions an image, K chats an image, R images and chats, flat.

QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
TOO_LARGE = "one image with its question does not fit; choose a smaller judge, or free memory on the device"

Result = TypeVar("Result")


class VQAJudge(ExplainingJudge, EarlyCheck):
    """VQAScore: log-odds of "yes" against "no" as the first token of another model's answer.

    The checkpoint is checked before anything is sampled. Its weights are loaded when the first image is judged, from
    safetensors. Code in its folder is not run. It is not part of the trained model and not stored in checkpoints.
    Families that also take videos, such as Qwen2.5-VL, need torchvision for their processor:
    ``pip install 'unigap[vqa]'``.

    Args:
        checkpoint: Folder or hub id in transformers' layout, e.g. ``Qwen/Qwen2.5-VL-7B-Instruct``.
        question: The question, with a ``{prompt}`` in it.
        dtype: Precision of the weights: ``auto`` (the checkpoint's), ``float32``, ``bfloat16``, or quantised by
            bitsandbytes: ``bnb-8bit`` or ``bnb-4bit``.
        device: Device of the judge, e.g. ``cuda:1``; empty means the device of the trained model.
        batch_size: Most images in one forward pass; halved whenever the device runs out of memory.
        device_map: ``auto`` spreads a model that is too large for one device over all visible ones; also ``balanced``,
            ``balanced_low_0`` and ``sequential``, see accelerate. Empty means one device.
        offload: Keep the weights on the CPU and move them to the device only while images are judged, so that the model
            under training has the memory.
    """

    not_in_recipe = (*Described.not_in_recipe, "device_map", "offload")

    def __init__(
        self,
        checkpoint: str,
        question: str = QUESTION,
        dtype: str = "auto",
        device: str = "",
        batch_size: int = 16,
        device_map: str = "",
        offload: bool = False,
    ) -> None:
        if "{prompt}" not in question:
            raise ValueError(f"question {question!r} has no {{prompt}} to put the prompt in")
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        # fail before anything is sampled
        resolve(checkpoint)
        self._placement = Placement(dtype, device, device_map)
        self._placement.check()
        if offload and not self._placement.movable:
            raise ValueError("offload moves whole models: leave it out with a device_map or a quantised dtype")
        self.checkpoint, self.question, self.dtype = checkpoint, question, dtype
        self.device, self.batch_size, self.device_map, self.offload = device, batch_size, device_map, offload
        self._reader: ImageReader | None = None
        self._limit = BatchLimit()

    @property
    def name(self) -> str:
        return f"vqa-{Path(self.checkpoint).resolve().name}"

    def check(self) -> None:
        if self._reader is None:
            ImageReader.check(self.checkpoint)

    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        return self._about([candidate.prompt.text for candidate in candidates], pixels_BCHW, self._device_of(model))

    def ask(self, texts: Sequence[str], pixels_BCHW: torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """Return log-odds that each image shows its text, float32 (B,) on ``device``."""
        return self._about(texts, pixels_BCHW, device).logit

    def ask_each(
        self, model: UnifiedModel, questions_BQ: Sequence[Sequence[str]], pixels_BCHW: torch.Tensor
    ) -> Answers:
        return self.ask_after(model, [[(text,) for text in row] for row in questions_BQ], pixels_BCHW)

    def ask_after(self, model: UnifiedModel, chats_BK: Sequence[Sequence[Chat]], pixels_BCHW: torch.Tensor) -> Answers:
        each = len(chats_BK[0]) if chats_BK else 1
        chats_R = [chat for chats in chats_BK for chat in chats]
        flat = self._answers(chats_R, pixels_BCHW.repeat_interleave(each, 0), self._device_of(model))
        return Answers(flat.logit.view(-1, each), flat.mass.view(-1, each))

    def explain(
        self, model: UnifiedModel, requests: Sequence[str], pixels_BCHW: torch.Tensor, how: Writing
    ) -> list[list[str]]:
        chats_R = [(request,) for request in requests for _ in range(how.samples)]
        pixels_RCHW = pixels_BCHW.repeat_interleave(how.samples, 0)
        seeds = [_seed(request, number) for request in requests for number in range(how.samples)]

        def write(reader: ImageReader, batch: slice) -> list[str]:
            return reader.texts(pixels_RCHW[batch], chats_R[batch], seeds[batch], how.temperature, how.max_tokens)

        texts = [text for part in self._in_batches(write, len(chats_R), self._device_of(model)) for text in part]
        return [texts[i : i + how.samples] for i in range(0, len(texts), how.samples)]

    def _about(self, texts: Sequence[str], pixels_BCHW: torch.Tensor, device: str) -> Answers:
        answers = self._answers([(self.question.replace("{prompt}", text),) for text in texts], pixels_BCHW, device)
        check_mass(self.name, answers.mass)
        return answers

    def _answers(self, chats_R: Sequence[Chat], pixels_RCHW: torch.Tensor, device: str) -> Answers:
        def answer(reader: ImageReader, batch: slice) -> Answers:
            return reader.answers(pixels_RCHW[batch], chats_R[batch])

        return joined(self._in_batches(answer, len(chats_R), device), pixels_RCHW)

    def _in_batches(self, run: Callable[[ImageReader, slice], Result], count: int, device: str) -> list[Result]:
        if not count:
            return []
        if self._reader is None:
            self._reader = ImageReader(self.checkpoint, replace(self._placement, device=device))
        reader = self._reader.to(device)
        try:
            batches = (lambda batch: run(reader, batch), count, self.batch_size, TOO_LARGE)
            return list(in_fitting_batches(*batches, self._limit))
        finally:
            if self.offload:
                reader.to("cpu")

    def _device_of(self, model: UnifiedModel) -> str:
        return self.device or str(next(model.parameters()).device)


def _seed(request: str, number: int) -> int:
    """Return the seed of a text, which depends on neither batch nor order."""
    return int.from_bytes(hashlib.sha256(f"{number}/{request}".encode()).digest()[:8]) >> 1
