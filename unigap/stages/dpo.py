"""Self-improvement by preferring what the model accepts to what it rejects (Algorithm 1, DPO)."""

from __future__ import annotations

from unigap.judges import Judge
from unigap.models.base import UnifiedModel
from unigap.objectives import DPO
from unigap.rounds import RoundPlan
from unigap.stages.base import ImproveStage


class DPOStage(ImproveStage):
    """Algorithm 1 with DPO: one round of candidates, then T epochs on accepted-against-rejected pairs.

    Args:
        model: The unified model.
        objective: Threshold, beta, weight of the likelihood term and pairs a prompt.
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
        objective: DPO | None = None,
        judge: Judge | None = None,
        external: Judge | None = None,
        lr: float = 2.0e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 20,
        init_from: str = "",
        eval_plan: RoundPlan | None = None,
        predict_plan: RoundPlan | None = None,
    ) -> None:
        super().__init__(
            model,
            objective or DPO(),
            judge,
            external,
            lr,
            weight_decay,
            warmup_steps,
            init_from,
            eval_plan,
            predict_plan,
        )
