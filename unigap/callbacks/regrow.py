"""When the loop turns: the first round before training, and the redraw schedule between epochs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn

from unigap.callbacks.dynamics_log import log_figures
from unigap.callbacks.run_checkpoint import run_checkpoint
from unigap.console.stop_signal import Stopped
from unigap.judges import check_same_judge
from unigap.loop.allocation import Allocation, FixedCandidates
from unigap.loop.behaviour import with_behaviour
from unigap.loop.counts import Counts, count_round
from unigap.loop.importing import IMPORTED
from unigap.loop.members import distinct_members
from unigap.loop.plan import RoundPlan
from unigap.loop.progress import Phase, training_is_over
from unigap.loop.ranks import ranks_of
from unigap.loop.references import stored_references
from unigap.loop.round import run_round
from unigap.loop.selection import Selection, select
from unigap.loop.verdict_columns import verdict_columns
from unigap.models.engine.sharding import whole
from unigap.pool import Pool
from unigap.records import Prompt
from unigap.stages import ImproveStage
from unigap.stages.sharded import refuse_sharded

PLAIN_PRECISION = "32-true"
"""Precision of a trainer that leaves numbers as the weights have them."""


class Regrow(Callback):
    """Draw the first round of the pool and, in a curriculum, redraw prompts between epochs.

    The stage's ``schedule`` says when. The next epoch trains on the new rows.

    Args:
        plan: How candidates are drawn; null draws 8 a prompt.
        allocation: How the images of a round are shared out between prompts; null gives each the same number.
    """

    def __init__(self, plan: RoundPlan | None = None, allocation: Allocation | None = None) -> None:
        self.plan, self.allocation = (plan or RoundPlan()).seeded("pool"), allocation or FixedCandidates()
        self.counts: list[Counts] = []
        self._owed = False
        self._gaps: dict[int, float] = {}

    # -- when a round runs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the first round unless the pool has one, and load the training rows."""
        if not isinstance(pl_module, ImproveStage):
            return
        self.counts = []
        pool, rounds = _open_pool(trainer, pl_module), max(pl_module.pool_data.rounds, 1)
        prompts, schedule = pl_module.pool_data.prompts, pl_module.schedule
        first = schedule.part(prompts, 0, self.plan.sampling_seed) if schedule else prompts
        drawn = None if pool.rounds else self._run_round(trainer, pl_module, pool, 0, first)
        self._load_rows(trainer, pl_module, pool, rounds, drawn)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the rows here for sharded strategies, which restore the checkpoint after ``on_fit_start``."""
        if trainer.strategy.restore_checkpoint_after_setup and trainer.state.fn == TrainerFn.FITTING:
            self.on_fit_start(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """If the run was made longer on resume, draw the round skipped at its old end."""
        checkpoint = run_checkpoint(trainer)
        ends = checkpoint is not None and checkpoint.phase == Phase.MEASURING
        if self._owed and not ends and isinstance(pl_module, ImproveStage):
            self._redraw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch's non-unification score for ``patience``."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or not isinstance(pl_module, ImproveStage):
            return
        if pl_module.schedule and pl_module.schedule.patience:
            self._gaps[trainer.current_epoch + 1] = float(pl_module.results["non_unification"]["all"].value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Redraw when the schedule says so; never after the last epoch."""
        if not isinstance(pl_module, ImproveStage) or not pl_module.schedule:
            return
        self._owed = pl_module.schedule.is_due(trainer.current_epoch + 1, self._gaps)
        if self._owed and not training_is_over(trainer):
            # a round belongs to the weights that drew it: a run killed during it continues from this checkpoint
            checkpoint = run_checkpoint(trainer)
            if checkpoint:
                checkpoint.save(trainer, Phase.DRAWING)
                checkpoint.obey(trainer)
            self._redraw(trainer, pl_module)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse trainers that would lose new rows silently, and candidates the objective cannot learn from."""
        if stage != "fit" or not isinstance(pl_module, ImproveStage):
            return
        self._prepare(trainer, pl_module)
        if pl_module.schedule and trainer.reload_dataloaders_every_n_epochs != 1:  # type: ignore[attr-defined]
            raise ValueError("a pool that grows needs trainer.reload_dataloaders_every_n_epochs=1; set it")
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise ValueError("spawned processes lose the pool; use strategy=ddp, which starts them by command")

    # -- what runs

    def _prepare(self, trainer: Trainer, stage: ImproveStage) -> None:
        objective, model = stage.objective, stage.model
        objective.prepare(model, self.plan)
        if objective.reference_follows:
            refuse_sharded(trainer, type(objective).__name__)
        if objective.needs_reference and model.reference_state is None:
            model.reference_state = model.trainable_state()

    def _redraw(self, trainer: Trainer, stage: ImproveStage) -> None:
        self._owed = False
        assert stage.schedule is not None
        data, pool = stage.pool_data, stage.pool_data.pool
        selection = select(pool, stage.judge.name, stage.objective.threshold, data.rounds - 1)
        discarded = selection.discarded(data.prompts)
        chosen = stage.schedule.choose(data.prompts, discarded, data.rounds, self.plan.sampling_seed)
        if chosen:
            drawn = self._run_round(trainer, stage, pool, data.rounds, chosen)
            if stage.objective.reference_follows:
                stage.model.reference_state = stage.model.trainable_state()
            self._load_rows(trainer, stage, pool, data.rounds + 1, drawn)

    def _run_round(
        self, trainer: Trainer, stage: ImproveStage, pool: Pool, number: int, prompts: Sequence[Prompt]
    ) -> Selection:
        """Run one round of the loop; SIGTERM and SIGINT stop it between batches."""
        ranks, checkpoint = ranks_of(trainer), run_checkpoint(trainer)

        def stop_if_asked(images: int) -> None:
            if checkpoint:
                checkpoint.stop.check()

        objective = stage.objective
        rest = (ranks, stop_if_asked, self.allocation, objective.threshold, objective.learning_recipe())
        try:
            with trainer.precision_plugin.forward_context(), whole(stage.model):
                return run_round(stage.model, prompts, stage.judges, pool, number, self.plan, *rest)
        except (ValueError, Stopped):
            if checkpoint:  # the other ranks know only that this one failed, not that it was asked to stop
                checkpoint.obey(trainer)
            raise

    def _load_rows(
        self, trainer: Trainer, stage: ImproveStage, pool: Pool, rounds: int, selection: Selection | None
    ) -> None:
        """Make training rows of the first ``rounds`` rounds, with references where needed, and log the counts.

        ``selection`` is that of the round just run; without one it is read from the pool.
        """
        data, ranks = stage.pool_data, ranks_of(trainer)
        with ranks.together():
            objective, judges = stage.objective, stage.objective.judges
            objective.use_verdicts({judge.name: pool.logits(judge.name, rounds - 1) for judge in judges})
            counts = self._counts_so_far(stage, pool, rounds)
            selection = selection or select(pool, stage.judge.name, objective.threshold, rounds - 1)
            if objective.needs_behaviour:
                first = objective.first_round(rounds - 1)
                selection = with_behaviour(pool, selection, range(first, rounds), self.plan.sampling)
            data.refresh(objective, selection, rounds, stage.schedule.every_n_steps if stage.schedule else 0)
        if objective.needs_reference and objective.needs_stored_references and stage.model.exact_likelihood:
            members = distinct_members(data.rows, objective.members)
            precision = trainer.precision_plugin.forward_context()
            key, state = reference_key(trainer, stage), stage.model.reference_state or {}
            data.use_references(stored_references(pool, key, members, stage.model, state, precision, ranks))
        self.counts = [*counts, self._count(stage, pool, selection, len(data.rows), rounds - 1)]
        growth = {f"pool/{name}": value for name, value in self.counts[-1].items()}
        log_figures(trainer.loggers, growth, trainer.global_step)
        if trainer.is_global_zero:
            _warn_if_all_accepted(pool, self.counts)

    def _counts_so_far(self, stage: ImproveStage, pool: Pool, rounds: int) -> list[Counts]:
        """Check the judges of the rounds that are new to this process; return the counts of all but the last."""
        late = any(judge.deferred for judge in stage.judges)
        counts = [] if late else self.counts[:rounds]  # verdicts of people may have come in since
        _check_judges(stage, pool, range(len(counts), rounds))
        for number in range(len(counts), rounds - 1):
            selection = select(pool, stage.judge.name, stage.objective.threshold, number)
            rows = len(stage.objective.rows(selection.candidates, selection.logits))
            counts.append(self._count(stage, pool, selection, rows, number))
        return counts

    @staticmethod
    def _count(stage: ImproveStage, pool: Pool, selection: Selection, rows: int, number: int) -> Counts:
        external = {} if stage.external is None else pool.logits(stage.external.name, upto=number)
        counts = count_round(pool, selection, external, stage.pool_data.prompts, rows, number)
        return counts | stage.objective.count_rows(selection.candidates, selection.logits)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next redraw depends on."""
        return {"gaps": self._gaps, "owed": self._owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the progress so far."""
        self._gaps, self._owed = state_dict["gaps"], state_dict["owed"]


def reference_key(trainer: Trainer, stage: ImproveStage) -> str:
    """Return the reference model's name in the pool: its weights' digest, and the precision unless that is plain."""
    precision = str(trainer.precision)
    return stage.start_key if precision == PLAIN_PRECISION else f"{stage.start_key}/{precision}"


def _open_pool(trainer: Trainer, stage: ImproveStage) -> Pool:
    data, ranks, digest = stage.pool_data, ranks_of(trainer), stage.model.drawing_digest()
    with ranks.together():
        if ranks.rank == 0:
            data.open_pool(digest, create=True, format=stage.model.drawing_format)
    with ranks.together():
        return data.open_pool(digest, create=False)


def _check_judges(stage: ImproveStage, pool: Pool, rounds: range) -> None:
    """Make sure that some rounds were judged by the stage's judges.

    Raises:
        ValueError: A round was judged by another judge, or waits for one that answers later.
    """
    for number in rounds:
        stored, where = pool.recipe(number).get("judges", ()), f"round {number} of pool {pool.folder}"
        for judge in stage.judges:
            check_same_judge(judge, stored, where)
    if not stage.judge.deferred or not rounds:
        return
    columns = verdict_columns(pool.candidates(rounds[-1]), pool.logits(stage.judge.name, rounds[-1]))
    for number in rounds:
        logit_N = columns.logit_N[columns.of_round(number)]
        if len(logit_N) and np.isnan(logit_N).all():
            raise ValueError(
                f"pool {pool.folder}: round {number} waits for the verdicts of {stage.judge.name!r} on {len(logit_N)} "
                "candidates; unigap judge export and import, then go on with --resume auto"
            )


def _warn_if_all_accepted(pool: Pool, counts: Sequence[Counts]) -> None:
    if IMPORTED in pool.recipe(0):
        return  # a source of captions calls all its images right
    accepted, judged = (sum(count[name] for count in counts) for name in ("accepted", "judged"))
    if accepted == judged:
        print(
            f"warning: pool {pool.folder}: the judge accepted all {judged} candidates, so it separates nothing; "
            "raise the threshold, or find out why it never says no",
            file=sys.stderr,
        )
