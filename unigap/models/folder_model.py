"""Members that the families share: training options, a LoRA adapter, saving, and answers to packed questions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from unigap.models.base import Answers, UnifiedModel
from unigap.models.engine.packed_questions import PackedUnderstanding
from unigap.models.files.lora import attach_lora, merged
from unigap.models.files.saved_folder import Loading, save_folder

IN_MEMORY = "weights made in memory"
"""Base of a model that was not loaded from a folder."""


class FolderModel(UnifiedModel):
    """Model loaded from a checkpoint folder.

    A family derives from it, and sets the attributes in its constructor before it calls ``_prepare``.

    Attributes:
        loading: How to load a saved folder, for the model card.
        net: The network.
        base: Folder or hub id of the base weights.
    """

    loading: ClassVar[Loading]
    net: Any
    base: str
    _understanding: PackedUnderstanding

    @property
    @abstractmethod
    def adapted(self) -> Any:
        """The transformers network that a LoRA adapter is attached to."""

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Write the weights, with an adapter merged, and the processor."""

    def _prepare(
        self, backbone: Any, gradient_checkpointing: bool, lora_rank: int, lora_alpha: int, lora_dropout: float
    ) -> None:
        """Apply the training options that all families have.

        Args:
            backbone: The transformers network of the trunk's layers.
            gradient_checkpointing: As in the constructor of the family, as are the others.
            lora_rank: 0 for no adapter.
            lora_alpha: Scale of the adapter.
            lora_dropout: Dropout inside the adapter.
        """
        if gradient_checkpointing:
            backbone.activation_checkpointing_enable({"use_reentrant": False})
        if lora_rank:
            self.add_lora(lora_rank, lora_alpha, lora_dropout)
        self.train_only_trunk()

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        attach_lora(self.adapted, self.base, self.lora_target, rank, alpha, dropout)

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        save_folder(self, self.adapted, self.base, self.loading, self._write, folder, adapter_only, recipe)

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        return self._understanding.judge_answers(pixels_BCHW, questions_BQ)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._understanding.text_logps(pixels_BCHW, questions_BQ, answers_BQ)


class TransformersModel(FolderModel):
    """Model that transformers has a class for: ``net`` is that class, and ``processor`` its processor."""

    processor: Any

    @property
    def adapted(self) -> Any:
        return self.net

    @property
    def usual_cfg(self) -> float:
        return self.net.generation_config.guidance_scale or 1.0

    def _write(self, folder: Path) -> None:
        merged(self.net).save_pretrained(folder)
        self.processor.save_pretrained(folder)


def transformers_loading(name: str) -> Loading:
    """Return how to load a saved folder with a class of transformers.

    Args:
        name: Name of the class.
    """
    return Loading(
        library="transformers",
        checkpoint=f"""from transformers import AutoProcessor, {name}

model = {name}.from_pretrained(FOLDER)
processor = AutoProcessor.from_pretrained(FOLDER)""",
        adapter=f"""from peft import PeftModel
from transformers import AutoProcessor, {name}

model = PeftModel.from_pretrained({name}.from_pretrained({{base!r}}), FOLDER)
processor = AutoProcessor.from_pretrained({{base!r}})""",
    )
