"""Base class of the self-improvement stages: one model, its judges, training on pool rows, measuring the gap."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from unigap.console import tasks
from unigap.data import PoolData, PromptRows
from unigap.evaluation.gap import EVAL_ROUND, both_verdicts, probe_logits, probe_scores
from unigap.evaluation.gap_meter import GapMeter
from unigap.judges import Judge, SelfJudge, check_early, check_immediate
from unigap.judges.own_external import warn_of_own_external
from unigap.loop.judging import judge_samples
from unigap.loop.plan import RoundPlan
from unigap.loop.ranks import ranks_of
from unigap.loop.sampling import SampledBatch, sample_candidates
from unigap.loop.schedule import RedrawSchedule
from unigap.metrics.intervals import Estimate
from unigap.models.base import UnifiedModel
from unigap.models.engine.memory import BatchLimit, settle_memory
from unigap.models.engine.sharding import is_sharded, shard, whole
from unigap.models.files.frozen_base import FrozenBase, check_base, fill_in, left_out_names
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.models.files.lora import adapter_scales
from unigap.models.files.weights import unsharded
from unigap.objectives import Objective, RowBatch
from unigap.records import Candidate, Judgment
from unigap.stages.idle_weights import IdleWeights
from unigap.stages.step_seed import seed_step

REFERENCE = "reference"
"""Key under which a checkpoint keeps the weights of a reference model that changes during the run."""
ADAPTER_SCALES = "adapter_scales"
"""Key under which a checkpoint keeps the scales of its adapted layers, which the weights alone do not tell."""


class ImproveStage(LightningModule):
    """Train the shared LLM of a unified model on rows of the pool; subclasses choose the objective.

    ``validate`` draws for held-out prompts and reports the gap with 95 % intervals; ``predict`` gives judged
    candidates, which ``PoolWriter`` stores.

    Args:
        model: The unified model.
        objective: Makes training rows of the pool and computes the loss.
        judge: Who selects: null is the model itself; others are controls and ceilings.
        external: The external judge, whose verdicts are stored and reported and never train anything; null asks none,
            and leaves out the figures that need one.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_steps: Steps over which the learning rate rises; it is constant afterwards, since the pool grows.
        init_from: Lightning checkpoint of an earlier stage whose weights to start from; empty starts from the model's.
        eval_plan: How evaluation images are drawn; null draws 4 a prompt.
        predict_plan: How ``predict`` draws candidates for the pool; null draws 8 a prompt.
    """

    objective: Objective
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
    ) -> None:
        super().__init__()
        if not 0 < lr < math.inf:
            raise ValueError(f"lr must be > 0 and finite, got {lr}; common values are 1e-6 to 5e-4")
        if warmup_steps < 0 or not 0 <= weight_decay < math.inf:
            raise ValueError(f"warmup_steps and weight_decay must be >= 0, got {warmup_steps} and {weight_decay}")
        self.model, self.objective = model, objective
        self.judge, self.external = judge or SelfJudge(), external
        if external is not None:
            check_immediate(external)
            warn_of_own_external(self.judge, external)
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.eval_plan = (eval_plan or RoundPlan(candidates=4)).seeded("evaluation")
        self.predict_plan = (predict_plan or RoundPlan()).seeded("predicted pool")
        self.frozen_base = FrozenBase(self.model)
        if init_from:
            load_stage(self.model, init_from)
        self.model.reference_state = self.model.trainable_state() if objective.needs_reference else None
        self.start_key = self.model.weights_digest()
        self._measurement, self._limit = contextlib.ExitStack(), BatchLimit()
        self.results: dict[str, dict[str, Estimate]] = {}
        self.trained_rows: tuple[str, ...] = ()

    @property
    def pool_data(self) -> PoolData:
        """The data module.

        Raises:
            ValueError: When the trainer runs with another one.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PoolData):
            raise ValueError("self-improvement stages train on a pool; set data.class_path to unigap.data.PoolData")
        return data

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
        if isinstance(self.trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise ValueError(
                f"{type(self.trainer.strategy).__name__} splits weights where drawing cannot reach them; "
                "use lightning.pytorch.strategies.ModelParallelStrategy, or ddp"
            )
        mesh = self.device_mesh
        if mesh is None or is_sharded(self.model):
            return
        if mesh["tensor_parallel"].size() > 1:
            raise ValueError(
                "the trunk is sharded over data-parallel processes only; set the strategy's "
                f"data_parallel_size={mesh.size()} and tensor_parallel_size=1"
            )
        if any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                "Lightning's weight averaging keeps weights whole and these are sharded; train an adapter with ddp "
                "(model.init_args.model.init_args.lora_rank), or leave the callback out"
            )
        shard(self.model, mesh["data_parallel"])
        self.strict_loading = False  # checkpoints leave out frozen weights
        if self.objective.needs_reference:
            self.model.reference_state = self.model.trainable_state()

    def configure_optimizers(self) -> Any:
        """Return AdamW on the trainable weights, with linear warm-up and then a constant rate.

        Raises:
            ValueError: Trainable weights are in bfloat16.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        if any(p.dtype == torch.bfloat16 for p in trained):
            raise ValueError(
                "bfloat16 weights round an optimizer's small steps away; set the model's dtype to float32 with "
                "trainer.precision=bf16-mixed, or lora_rank, or train with ModelParallelStrategy"
            )
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
        rise = max(1, self.warmup_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

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

    # -- measuring the gap

    def on_validation_start(self) -> None:
        """Gather sharded weights until the end, since processes may hold unequal numbers of prompts."""
        images = self.eval_plan.candidates * len(self.pool_data.val_dataloader().dataset)  # type: ignore[arg-type]
        self._begin("measuring", "validation", images)

    def on_validation_end(self) -> None:
        """Shard the weights again, now that every process is done."""
        self._measurement.close()

    def on_predict_start(self) -> None:
        """As for validation."""
        images = self.predict_plan.candidates * len(self.pool_data.predict_dataloader().dataset)  # type: ignore[arg-type]
        self._begin("storing", "round 0", images)

    def on_predict_end(self) -> None:
        """As for validation."""
        self._measurement.close()

    def _begin(self, name: str, title: str, images: int) -> None:
        """Begin a task on this process's share of images, with whole weights, until ``_measurement`` is closed."""
        title = ranks_of(self.trainer).share_of(title)
        self._measurement.enter_context(tasks.task(name, title, images, "image", tasks.IMAGE_PARTS))
        self._measurement.enter_context(whole(self.model))
        self._limit = BatchLimit()

    def on_validation_epoch_start(self) -> None:
        """Start with empty metrics."""
        prompts, candidates = self.pool_data.eval_prompts, self.eval_plan.candidates
        self.meter = GapMeter(prompts, candidates, external=self.external is not None).to(self.device)

    @torch.no_grad()
    def look(self) -> GapMeter:
        """Measure the gap on the validation prompts outside the trainer's loop.

        All processes have to come here together.
        """
        with self._measurement, self.trainer.precision_plugin.forward_context():
            self.on_validation_start()
            self.on_validation_epoch_start()
            for number, batch in enumerate(self.pool_data.val_dataloader()):
                self.validation_step(batch.to(self.device), number)
        return self.meter

    def validation_step(self, batch: PromptRows, batch_idx: int) -> None:
        """Sample for a batch of held-out prompts and count the verdicts of both judges."""
        for sampled in self._draw(batch, EVAL_ROUND, self.eval_plan):
            own_B, right_B = both_verdicts(self.model, self.own_judge, self.external, sampled)
            self.meter.update(sampled.candidates, own_B.to(self.device), right_B)

    def on_validation_epoch_end(self) -> None:
        """Log every figure, and keep it with its interval in ``results``."""
        self.results = self.meter.compute()
        probe_set = self.pool_data.probes
        if probe_set is not None:
            scored = probe_scores(probe_set, probe_logits(self.model, probe_set, self.own_judge))
            self.results |= {name: {"all": estimate} for name, estimate in scored.items()}
        for name, groups in self.results.items():
            for group, estimate in groups.items():
                self.log(f"gap/{name}/{group}", estimate.value, rank_zero_only=True)
        # short enough for the progress bar of a narrow terminal
        for name in [name for name in ("generation", "non_unification") if name in self.results]:
            self.log(name, self.results[name]["all"].value, prog_bar=True, logger=False, rank_zero_only=True)

    def predict_step(self, batch: PromptRows, batch_idx: int) -> tuple[list[Candidate], list[Judgment]]:
        """Return judged candidates for a batch of prompts; ``PoolWriter`` stores them.

        Lightning cannot keep them beside that: call ``Trainer.predict`` with ``return_predictions=False``.
        """
        candidates: list[Candidate] = []
        judgments: list[Judgment] = []
        for sampled in self._draw(batch, 0, self.predict_plan):
            candidates += sampled.candidates
            judgments += judge_samples(self.model, sampled, self.judges)
        return candidates, judgments

    def _draw(self, batch: PromptRows, round: int, plan: RoundPlan) -> Iterator[SampledBatch]:
        how = (plan.candidates, round, plan.sampling_seed, plan.sampling, plan.images_per_batch)
        return sample_candidates(self.model, batch.prompts, *how, limit=self._limit)

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The judges of a candidate: the selecting one, those of the objective, and the external one, if any."""
        learned_from = (self.judge, *self.objective.judges)
        return learned_from if self.external is None else (*learned_from, self.external)

    @property
    def own_judge(self) -> SelfJudge:
        """The model's own judge. The gap is always measured with it, even if another judge selects."""
        return self.judge if isinstance(self.judge, SelfJudge) else SelfJudge()


def refuse_sharded(trainer: Trainer, who: str) -> None:
    """Check that every process holds the weights it trains.

    Args:
        trainer: Knows the strategy.
        who: What needs them.

    Raises:
        ValueError: When the strategy shards them.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy):
        raise ValueError(
            f"{who} needs weights that are not sharded; train with ddp (an adapter needs less memory: lora_rank), or "
            "remove it"
        )


def load_stage(model: UnifiedModel, path: str) -> None:
    """Load the weights of an earlier stage's Lightning checkpoint into ``model``, which keeps its own options.

    Raises:
        ValueError: When the file is no checkpoint, or holds another model, an adapter of another scale, or weights that
            were trained on another base.
    """
    content = open_lightning(path, "init_from")
    state = {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}
    present = model.state_dict()
    kept = {name: present[name] for name in (*model.options, *left_out_names(content)) if name in present}
    try:
        model.load_state_dict(state | kept)
    except RuntimeError as error:
        raise ValueError(
            f"init_from {path!r} holds the weights of another model; give the same checkpoint and LoRA rank"
        ) from error
    check_base(model, content, f"init_from {path!r}")
    stored, own = content.get(ADAPTER_SCALES, {}), adapter_scales(model)
    other = next((name for name in stored if stored[name] != own.get(name)), None)
    if other:
        raise ValueError(
            f"init_from {path!r} was trained with lora_alpha / lora_rank = {stored[other]:g} on {other}, and this "
            f"model has {own.get(other, 0):g}; give the same lora_alpha"
        )
