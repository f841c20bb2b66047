"""Store the judged candidates of ``unigap predict`` as the first round of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from unigap.loop.ranks import ranks_of
from unigap.pool.shards import RoundWriter
from unigap.stages import ImproveStage


class PoolWriter(BasePredictionWriter):
    """Write each predicted batch as a shard and commit the round at the end; an interrupted round is completed."""

    def __init__(self) -> None:
        super().__init__("batch")
        self._writer: RoundWriter | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the round."""
        if not isinstance(pl_module, ImproveStage):
            raise ValueError(f"PoolWriter stores what self-improvement stages sample, not {type(pl_module).__name__}")
        model, create = pl_module.model, trainer.is_global_zero
        pool = pl_module.pool_data.open_pool(model.drawing_digest(), create, model.drawing_format)
        if pool.rounds:
            raise ValueError(
                f"pool {pool.folder} holds {len(pool.rounds)} round(s) already; choose a new data.pool folder"
            )
        recipe = pl_module.predict_plan.recipe(pl_module.model, pl_module.judges)
        self._writer = pool.writer(0, recipe, lead=trainer.is_global_zero)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write a shard of the candidates that are not stored yet."""
        assert self._writer is not None
        candidates, judgments = prediction
        done = self._writer.done()
        fresh = {c.id for c in candidates if (c.prompt.id, c.index) not in done}
        if fresh:
            self._writer.write(
                [c for c in candidates if c.id in fresh],
                [j for j in judgments if j.candidate_id in fresh],
                trainer.global_rank,
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Commit the round."""
        assert self._writer is not None and isinstance(pl_module, ImproveStage)
        ranks_of(trainer).gather("")
        if trainer.is_global_zero:
            self._writer.commit(pl_module.pool_data.prompts)
