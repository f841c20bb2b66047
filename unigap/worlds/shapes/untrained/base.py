"""What a family has to bring so that a small model of it can be pretrained on the embedded world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from unigap.models.base import UnifiedModel
from unigap.worlds.shapes.tokenizer_training.base import TokenizerTrainer


class UntrainedModel(ABC):
    """An untrained model of one family.

    Args:
        hidden_size: Width of the trunk.
        layers: Depth of the trunk.
        n_codes: Size of the image vocabulary.
    """

    def __init__(self, hidden_size: int = 128, layers: int = 4, n_codes: int = 256) -> None:
        self.hidden_size, self.layers, self.n_codes = hidden_size, layers, n_codes

    @abstractmethod
    def model(self) -> UnifiedModel:
        """A model with fresh weights, drawn from torch's global generator.

        Raises:
            ValueError: The family has no such model.
        """

    @abstractmethod
    def tokenizer(self, model: Any) -> TokenizerTrainer:
        """What trains the image tokenizer of a model that was made here."""
