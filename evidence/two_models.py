"""The control without sharing: one model generates images, another of the same kind judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import Answers, PromptBatch, Samples, SamplingRecipe, UnifiedModel


class TwoModels(UnifiedModel):
    """Two models behind the protocol of one, without shared weights.

    Generation training cannot change the judge, and any measured coupling of the branches is chance.

    Args:
        drawing: The model of the generation branch; its image likelihood is exact.
        judging: The model of the understanding branch.
    """

    exact_likelihood: ClassVar[bool] = True
    unreached_by_images = ("judging.",)

    def __init__(self, drawing: UnifiedModel, judging: UnifiedModel) -> None:
        super().__init__()
        self.drawing, self.judging = drawing, judging

    @property
    def usual_cfg(self) -> float:
        return self.drawing.usual_cfg

    @property
    def trunk(self) -> nn.Module:
        return nn.ModuleDict({"drawing": self.drawing.trunk, "judging": self.judging.trunk})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [*self.drawing.blocks, *self.judging.blocks]

    @property
    def lora_target(self) -> str:
        return rf"drawing\.({self.drawing.lora_target})|judging\.({self.judging.lora_target})"

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        return self.drawing.encode_prompt(texts)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        return self.drawing.sample_images(prompt, seeds_BN, recipe)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        return self.drawing.drawing_bytes(recipe)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        return self.drawing.image_logps(prompt, drawings_R, noise_R, recipe)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.judging.text_logps(pixels_BCHW, questions_BQ, answers_BQ)

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        return self.judging.judge_answers(pixels_BCHW, questions_BQ)

    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        return self.drawing.decode(drawings_B)

    def drawing_digest(self) -> str:
        return self.drawing.drawing_digest()

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.drawing.encode(pixels_BCHW)

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        for half in (self.drawing, self.judging):
            half.add_lora(rank, alpha, dropout)

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        """Write each model to its own folder, ``drawing`` and ``judging``."""
        for name, half in (("drawing", self.drawing), ("judging", self.judging)):
            half.save(Path(folder) / name, adapter_only, recipe)
