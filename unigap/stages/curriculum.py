"""Self-improvement that comes back to what it could not draw at first (Algorithm 2, curriculum replay)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unigap.models.base import UnifiedModel
from unigap.objectives import SFT, Objective
from unigap.stages.base import ImproveStage

Redraw = Literal["discarded", "all", "solved"]


@dataclass(frozen=True)
class RedrawSchedule:
    """When a curriculum draws new candidates, and for which prompts.

    Args:
        every_n_epochs: Redraw after every so many epochs; 0 does not.
        at_epochs: Redraw after these epochs, counted from 1 (the paper: 10).
        patience: Redraw when the non-unification score on validation prompts, which needs no external judge, has not
            fallen for this many epochs; 0 does not.
        redraw: ``discarded``: the prompts nothing was accepted for (Algorithm 2). ``all``: every prompt, so that the
            model learns from what it draws by then. ``solved``: as many as are discarded, but at random from the
            others: the control that separates replay from mere fresh samples.
    """

    every_n_epochs: int = 0
    at_epochs: Sequence[int] = ()
    patience: int = 0
    redraw: Redraw = "discarded"

    def __post_init__(self) -> None:
        for name in ("every_n_epochs", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}; 0 turns it off")
        if any(epoch < 1 for epoch in self.at_epochs):
            raise ValueError(f"at_epochs counts from 1, got {list(self.at_epochs)}")
        if not (self.every_n_epochs or self.at_epochs or self.patience):
            raise ValueError(
                "a schedule that never redraws: set every_n_epochs, at_epochs or patience of CurriculumStage.schedule, "
                "or use SFTStage or DPOStage"
            )

    def names(self, epoch: int) -> bool:
        """Whether to redraw after an epoch, counted from 1, whatever the progress."""
        return epoch in self.at_epochs or bool(self.every_n_epochs and epoch % self.every_n_epochs == 0)


class CurriculumStage(ImproveStage):
    """Algorithm 2: as Algorithm 1, while `Regrow` redraws the discarded prompts and adds what is accepted by then.

    Args:
        model: The unified model.
        objective: SFT (C-SFT) or DPO (C-DPO); null is SFT.
        schedule: When to redraw, and what; null redraws the discarded prompts after every epoch.
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
