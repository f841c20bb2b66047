"""Self-improvement that comes back to what it could not draw at first (Algorithm 2, curriculum replay)."""

from __future__ import annotations

from typing import Any

from unigap.models.base import UnifiedModel
from unigap.objectives import SFT, Objective
from unigap.stages.base import ImproveStage


class CurriculumStage(ImproveStage):
    """Algorithm 2: as Algorithm 1, while `Regrow` redraws the discarded prompts and adds what is accepted by then.

    Args:
        model: The unified model.
        objective: SFT (C-SFT) or DPO (C-DPO); null is SFT.
        kwargs: As in ``ImproveStage``.
    """

    def __init__(self, model: UnifiedModel, objective: Objective | None = None, **kwargs: Any) -> None:
        super().__init__(model, objective or SFT(), **kwargs)
