"""Self-improvement with curriculum replay: discarded prompts are redrawn during training (Algorithm 2)."""

from __future__ import annotations

from typing import Any

from unigap.loop.schedule import RedrawSchedule
from unigap.models.base import UnifiedModel
from unigap.objectives import SFT, Objective
from unigap.stages.base import ImproveStage


class CurriculumStage(ImproveStage):
    """Algorithm 2: train as Algorithm 1, while `Regrow` redraws discarded prompts and adds the newly accepted rows.

    Args:
        model: The unified model.
        objective: SFT (C-SFT) or DPO (C-DPO); null is SFT.
        schedule: When to redraw, and for which prompts; null redraws the discarded prompts after every epoch.
        kwargs: As in ``ImproveStage``.
    """

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective | None = None,
        schedule: RedrawSchedule | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, objective or SFT(), **kwargs)
        self.schedule = schedule or RedrawSchedule(every_n_epochs=1)
