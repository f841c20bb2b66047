"""The interface that a model family implements to pretrain a small model on the embedded world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from unigap.models.base import UnifiedModel
from unigap.worlds.shapes.tokenizer_training.base import TokenizerTrainer


class UntrainedModel(ABC):
    """An untrained model of one family.

    Args:
        hidden_size: Width of the shared LLM.
        layers: Number of layers of the shared LLM.
        n_codes: Size of the image vocabulary.
    """

    def __init__(self, hidden_size: int = 128, layers: int = 4, n_codes: int = 256) -> None:
        self.hidden_size, self.layers, self.n_codes = hidden_size, layers, n_codes

    @abstractmethod
    def model(self) -> UnifiedModel:
        """Return a freshly initialised model; the weights come from torch's global generator.

        Raises:
            ValueError: The family has no model of this size.
        """

    @abstractmethod
    def tokenizer(self, model: Any) -> TokenizerTrainer:
        """Return the trainer of the image tokenizer of a model that ``model`` returned."""
