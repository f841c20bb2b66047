"""Self-improvement by maximum likelihood of what the model accepts (Algorithm 1, SFT)."""

from __future__ import annotations

from typing import Any

from unigap.models.base import UnifiedModel
from unigap.objectives import SFT
from unigap.stages.base import ImproveStage


class SFTStage(ImproveStage):
    """Algorithm 1 with SFT: one round of candidates, then T epochs on the accepted ones.

    Args:
        model: The unified model.
        objective: What counts as accepted and how much of it is kept.
        kwargs: As in ``ImproveStage``.
    """

    def __init__(self, model: UnifiedModel, objective: SFT | None = None, **kwargs: Any) -> None:
        super().__init__(model, objective or SFT(), **kwargs)
