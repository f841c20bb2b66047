"""Base class of the self-improvement stages: one model, its judges, training on pool rows, measuring the gap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from unigap.judges import Judge, check_early
from unigap.loop.plan import RoundPlan
from unigap.loop.schedule import RedrawSchedule
from unigap.models.base import UnifiedModel
from unigap.models.engine.memory import settle_memory
from unigap.models.engine.sharding import is_sharded, shard
from unigap.models.files.frozen_base import FrozenBase, fill_in
from unigap.models.files.lora import adapter_scales
from unigap.models.files.weights import unsharded
from unigap.objectives import Objective, RowBatch
from unigap.stages.earlier_stage import ADAPTER_SCALES, load_stage
from unigap.stages.idle_weights import IdleWeights
from unigap.stages.lr_schedule import Constant, LRSchedule
from unigap.stages.measuring import MeasuringStage
from unigap.stages.optimizer import OptimizerOfWeights, check_rates, make_optimizer, with_schedule
from unigap.stages.sharded import check_mesh, check_strategy
from unigap.stages.step_seed import seed_step

REFERENCE = "reference"
"""Key under which a checkpoint keeps the weights of a reference model that changes during the run."""


class ImproveStage(MeasuringStage):
    """Train the shared LLM of a unified model on rows of the pool; subclasses choose the objective.

    ``validate`` draws for held-out prompts and reports the gap with 95 % intervals; ``predict`` gives judged
    candidates, which ``PoolWriter`` stores.

    Args:
        model: The unified model.
        objective: Makes training rows of the pool and computes the loss.
        judge: Who selects: null is the model itself; others are controls and ceilings.
        external: The external judge, whose verdicts are stored and reported and never train anything; null asks none,
            and leaves out the figures that need one.
        lr: Learning rate after warm-up.
        weight_decay: Weight decay of the default optimizer.
        warmup_steps: Steps over which the learning rate rises.
        init_from: Lightning checkpoint of an earlier stage whose weights to start from; empty starts from the model's.
        eval_plan: How evaluation images are drawn; null draws 4 a prompt.
        predict_plan: How ``predict`` draws candidates for the pool; null draws 8 a prompt.
        optimizer: Class of the optimizer, e.g. ``torch.optim.SGD``, with options of its own; null is AdamW. It takes
            its learning rate from ``lr``.
        lr_schedule: How the learning rate falls after warm-up; null keeps it constant.
    """

    schedule: RedrawSchedule | None = None
    """When to draw again; ``None`` draws one round."""

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective,
        judge: Judge | None = None,
        external: Judge | None = None,
        lr: float = 3.0e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 20,
        init_from: str = "",
        eval_plan: RoundPlan | None = None,
        predict_plan: RoundPlan | None = None,
        optimizer: OptimizerOfWeights | None = None,
        lr_schedule: LRSchedule | None = None,
    ) -> None:
        super().__init__(model, objective, judge, external, eval_plan, predict_plan)
        check_rates(lr, weight_decay, warmup_steps, optimizer)
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.optimizer, self.lr_schedule = optimizer, lr_schedule or Constant()
        self.frozen_base = FrozenBase(self.model)
        if init_from:
            load_stage(self.model, init_from)
        self.model.reference_state = self.model.trainable_state() if objective.needs_reference else None
        self.start_key = self.model.weights_digest()
        self.trained_rows: tuple[str, ...] = ()

    def setup(self, stage: str) -> None:
        """Check the judges before anything is sampled, and return the memory that loading has freed.

        Raises:
            ValueError: A judge could not judge, e.g. because its checkpoint does not load.
        """
        check_early(self.judges)
        settle_memory(self.model, self.trainer.strategy.root_device)

    def configure_model(self) -> None:
        """Shard the shared LLM over all processes if the strategy is ``ModelParallelStrategy``.

        Raises:
            ValueError: For strategies under which drawing cannot reach the weights, for tensor parallelism, and for
                averaged weights, which Lightning keeps whole.
        """
        check_strategy(self.trainer)
        mesh = self.device_mesh
        if mesh is None or is_sharded(self.model):
            return
        check_mesh(self.trainer, mesh)
        shard(self.model, mesh["data_parallel"])
        self.strict_loading = False  # checkpoints leave out frozen weights
        if self.objective.needs_reference:
            self.model.reference_state = self.model.trainable_state()

    def configure_optimizers(self) -> Any:
        """Return the optimizer of the trainable weights, with warm-up and the schedule of its learning rate.

        Raises:
            ValueError: The optimizer cannot train these weights, or the schedule needs an end that the run lacks.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = make_optimizer(trained, self.lr, self.weight_decay, self.optimizer)
        return with_schedule(optimizer, self.warmup_steps, self.lr_schedule, self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapted layers' scales and a changing reference model; leave out what the base checkpoint gives."""
        checkpoint[ADAPTER_SCALES] = adapter_scales(self.model)
        if self.objective.reference_follows:
            checkpoint[REFERENCE] = self.model.reference_state
        if self.global_rank == 0:
            self.frozen_base.leave_out(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights that the checkpoint leaves out from the model, and back a reference model that changes.

        Raises:
            ValueError: The checkpoint was trained on another base.
        """
        fill_in(self.model, checkpoint, "the checkpoint")
        if self.objective.reference_follows:
            self.model.reference_state = checkpoint[REFERENCE]

    def on_train_start(self) -> None:
        """Put only the shared LLM into train mode: frozen parts keep their statistics and use no dropout."""
        self.model.eval()
        self.model.trunk.train()
        settle_memory(self.model, self.device)  # moving and restoring weights have freed memory
        self._idle = IdleWeights(self.model)

    def on_train_batch_start(self, batch: RowBatch, batch_idx: int) -> None:
        """Seed dropout and noise by the step and the batch in it, so that a resumed run draws the same."""
        seed_step(self.trainer, self.pool_data.seed, batch_idx)

    def training_step(self, batch: RowBatch, batch_idx: int) -> torch.Tensor:
        """Return the objective's loss.

        Raises:
            ValueError: The loss or a log-likelihood in it is not finite; the message names the rows.
        """
        result, self.trained_rows = self.objective.step(self.model, batch), batch.ids
        self.check_finite({"loss": result.loss, **result.logs})
        size = len(batch.ids)
        self.log("train/loss", result.loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": value for name, value in result.logs.items()}, batch_size=size)
        return result.loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a step whose gradient is not finite, or lacks weights that several processes should train.

        Raises:
            ValueError: The gradient is not finite (the message names the rows), or weights take no part in the loss.
        """
        self._idle.update()
        if self.trainer.world_size > 1:  # ddp would fail in the next step
            self._idle.refuse(type(self.objective).__name__)
        precision = self.trainer.precision_plugin
        if isinstance(precision, MixedPrecision) and precision.scaler is not None:
            return  # the scaler of float16 leaves such steps out and tries a smaller scale
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.check_finite({"gradient": unsharded(torch.nn.utils.get_total_norm(gradients))})

    def on_train_epoch_end(self) -> None:
        """Stop if weights had no gradient in the whole epoch; a single batch may have no question for them.

        Raises:
            ValueError: Weights that should train take no part in the loss.
        """
        self._idle.refuse(type(self.objective).__name__)

    def check_finite(self, values: Mapping[str, torch.Tensor]) -> None:
        """Check that scalars, given by name, are finite.

        Raises:
            ValueError: A value is not finite; the message names the rows of the batch.
        """
        finite = torch.stack([value.detach().float() for value in values.values()]).isfinite()
        if not finite.all():
            name, value = list(values.items())[int(finite.int().argmin())]
            more = len(self.trained_rows) - 2
            rows = ", ".join(self.trained_rows[:2]) + (f" and {more} more" if more > 0 else "")
            raise ValueError(
                f"the {name} is {value.item()} at step {self.global_step} on rows {rows}; "
                "lower the learning rate and resume from the last checkpoint"
            )
