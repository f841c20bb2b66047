"""Online reinforcement learning with the model's own judge as the reward."""

from __future__ import annotations

from typing import Any

from unigap.loop.schedule import RedrawSchedule
from unigap.models.base import UnifiedModel
from unigap.objectives import GRPO, Objective
from unigap.stages.base import ImproveStage


class GRPOStage(ImproveStage):
    """Draw a group of images for each prompt, learn from their rewards, and draw again with the new weights.

    Args:
        model: The unified model.
        objective: ``GRPO`` with its reward, clips and divergence, ``NFT``, or ``Joint`` around one; null is ``GRPO``.
        schedule: When to draw again and for how many prompts; null draws for every prompt after each epoch.
        kwargs: As in ``ImproveStage``.
    """

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective | None = None,
        schedule: RedrawSchedule | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, objective or GRPO(), **kwargs)
        self.schedule = schedule or RedrawSchedule(every_n_epochs=1, redraw="all")
