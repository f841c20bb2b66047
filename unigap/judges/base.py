"""What every judge offers: log-odds of "yes, this is what was asked" for each drawing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from unigap.models.base import UnifiedModel
from unigap.records import Candidate

CERTAIN = 20.0
"""Log-odds with which a judge that is never in doubt speaks."""


class Judge(ABC):
    """Says how sure it is that each image shows what its prompt asks for."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name under which its judgments are stored, e.g. ``"self"``."""

    @abstractmethod
    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Log-odds of yes.

        Args:
            model: The model that is being improved; only the model's own judge looks at it.
            candidates: What was drawn, B of them.
            pixels_BCHW: The same as images in [-1, 1].

        Returns:
            float32 (B,), finite.
        """
