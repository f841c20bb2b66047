"""Self-improvement by preferring what the model accepts to what it rejects (Algorithm 1, DPO)."""

from __future__ import annotations

from typing import Any

from unigap.models.base import UnifiedModel
from unigap.objectives import DPO
from unigap.stages.base import ImproveStage


class DPOStage(ImproveStage):
    """Algorithm 1 with DPO: one round of candidates, then T epochs on accepted-against-rejected pairs.

    Args:
        model: The unified model.
        objective: Threshold, beta, weight of the likelihood term and pairs a prompt.
        kwargs: As in ``ImproveStage``.
    """

    def __init__(self, model: UnifiedModel, objective: DPO | None = None, **kwargs: Any) -> None:
        super().__init__(model, objective or DPO(), **kwargs)
