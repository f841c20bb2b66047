"""Self-improvement that comes back to what it could not draw at first (Algorithm 2, curriculum replay)."""

from __future__ import annotations

from unigap.judges import Judge
from unigap.models.base import UnifiedModel
from unigap.objectives import SFT, Objective
from unigap.rounds import RoundPlan
from unigap.stages.base import ImproveStage


class CurriculumStage(ImproveStage):
    """Algorithm 2: as Algorithm 1, while `Regrow` redraws the discarded prompts and adds what is accepted by then.

    Args:
        model: The unified model.
        objective: SFT (C-SFT) or DPO (C-DPO); null is SFT.
        judge: Who selects; null is the model itself.
        external: Who knows better, for evaluation; null is the embedded world's oracle.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_steps: Steps over which the learning rate rises.
        init_from: Lightning checkpoint of an earlier stage to start from; empty starts from the model's weights.
        eval_plan: How evaluation images are drawn; null draws 4 a prompt.
        predict_plan: How ``predict`` draws candidates for the pool; null draws 8 a prompt.
    """

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective | None = None,
        judge: Judge | None = None,
        external: Judge | None = None,
        lr: float = 3.0e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 20,
        init_from: str = "",
        eval_plan: RoundPlan | None = None,
        predict_plan: RoundPlan | None = None,
    ) -> None:
        super().__init__(
            model,
            objective or SFT(),
            judge,
            external,
            lr,
            weight_decay,
            warmup_steps,
            init_from,
            eval_plan,
            predict_plan,
        )
