"""Base class of the stages that samples and measures: validation, prediction, and the gap."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule

from unigap.console import tasks
from unigap.data import PoolData, PromptRows
from unigap.evaluation.gap import EVAL_ROUND, both_verdicts, probe_logits, probe_scores
from unigap.evaluation.gap_meter import GapMeter
from unigap.judges import Judge, SelfJudge, check_immediate
from unigap.judges.own_external import warn_of_own_external
from unigap.loop.judging import judge_samples
from unigap.loop.plan import RoundPlan
from unigap.loop.ranks import ranks_of
from unigap.loop.sampling import SampledBatch, sample_candidates
from unigap.metrics.intervals import Estimate
from unigap.models.base import UnifiedModel
from unigap.models.engine.memory import BatchLimit
from unigap.models.engine.sharding import whole
from unigap.objectives import Objective
from unigap.records import Candidate, Judgment


class MeasuringStage(LightningModule):
    """Sample for prompts and judge: ``validate`` measures the gap, ``predict`` gives candidates for a pool.

    Args:
        model: The unified model.
        objective: Knows further judges of candidates.
        judge: The judge that selects; None is the model itself.
        external: The external judge, or None.
        eval_plan: How ``validate`` draws; None draws 4 images a prompt.
        predict_plan: How ``predict`` draws; None draws 8 images a prompt.
    """

    def __init__(
        self,
        model: UnifiedModel,
        objective: Objective,
        judge: Judge | None,
        external: Judge | None,
        eval_plan: RoundPlan | None,
        predict_plan: RoundPlan | None,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.judge, self.external = judge or SelfJudge(), external
        if external is not None:
            check_immediate(external)
            warn_of_own_external(self.judge, external)
        self.eval_plan = (eval_plan or RoundPlan(candidates=4)).seeded("evaluation")
        self.predict_plan = (predict_plan or RoundPlan()).seeded("predicted pool")
        self._measurement, self._limit = contextlib.ExitStack(), BatchLimit()
        self.results: dict[str, dict[str, Estimate]] = {}

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
    def look(self, see: Callable[[Mapping[str, Any]], None]) -> GapMeter:
        """Measure the gap on the validation prompts outside the trainer's loop.

        All processes have to come here together.

        Args:
            see: Called with what ``validation_step`` returns for each batch.
        """
        with self._measurement, self.trainer.precision_plugin.forward_context():
            self.on_validation_start()
            self.on_validation_epoch_start()
            for number, batch in enumerate(self.pool_data.val_dataloader()):
                see(self.validation_step(batch.to(self.device), number))
        return self.meter

    def validation_step(self, batch: PromptRows, batch_idx: int) -> dict[str, list[SampledBatch]]:
        """Sample for a batch of held-out prompts and count the verdicts of both judges.

        Returns:
            The images as ``sampled``, for callbacks.
        """
        seen = []
        for sampled in self._draw(batch, EVAL_ROUND, self.eval_plan):
            own_B, right_B = both_verdicts(self.model, self.own_judge, self.external, sampled)
            self.meter.update(sampled.candidates, own_B.to(self.device), right_B)
            seen.append(sampled)
        return {"sampled": seen}

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
