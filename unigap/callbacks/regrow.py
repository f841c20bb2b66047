"""The only way back in the flow of data: fills the pool before training and comes back to discarded prompts."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn
from tqdm import tqdm

from unigap.callbacks.dynamics_log import log_figures
from unigap.callbacks.run_checkpoint import run_checkpoint
from unigap.console.stop_signal import Stopped
from unigap.data import PoolData
from unigap.judges import check_same_judge
from unigap.loop.allocation import Allocation, FixedCandidates
from unigap.loop.progress import Phase, training_is_over
from unigap.loop.round import Ranks, RoundPlan, collect_round, image_likelihoods
from unigap.loop.selection import discarded_prompts, threshold_logit
from unigap.models.engine.sharding import whole
from unigap.pool import Pool
from unigap.records import Candidate, Prompt
from unigap.stages import CurriculumStage, ImproveStage, RedrawSchedule
from unigap.stages.curriculum import Redraw

REFERENCE_BATCH = 256
"""Candidates in one forward pass of the reference."""

PLAIN_PRECISION = "32-true"
"""Precision of a trainer that leaves numbers as the weights have them."""

Counts = dict[str, int]


class Regrow(Callback):
    """Draws the first pool, and, in a curriculum, redraws the discarded prompts with the model as it has become.

    ``CurriculumStage`` says when, by its schedule. New rows are trained on in the very next epoch.

    Args:
        plan: How candidates are drawn; null draws 8 a prompt.
        allocation: Which prompts the images of a round go to; null gives each the same number.
    """

    def __init__(self, plan: RoundPlan | None = None, allocation: Allocation | None = None) -> None:
        self.plan, self.allocation = (plan or RoundPlan()).seeded("pool"), allocation or FixedCandidates()
        self.counts: list[Counts] = []
        self._owed = False
        self._gaps: dict[int, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses combinations in which regrowth would be lost without a word."""
        if stage != "fit" or not isinstance(pl_module, ImproveStage):
            return
        if isinstance(pl_module, CurriculumStage) and trainer.reload_dataloaders_every_n_epochs != 1:  # type: ignore[attr-defined]
            raise ValueError("a pool that grows needs trainer.reload_dataloaders_every_n_epochs=1; set it")
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise ValueError("spawned processes lose the pool; use strategy=ddp, which starts them by command")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the first round where the pool has none, and takes its rows."""
        if not isinstance(pl_module, ImproveStage):
            return
        stage, data, pool = self._house(trainer, pl_module, create=True)
        rounds = max(data.rounds, 1)
        if not pool.rounds:
            self._draw(trainer, stage, pool, 0, data.prompts)
        self._take(trainer, stage, data, pool, rounds)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the rows the run goes on with, where they are restored after ``on_fit_start``, as sharded runs are."""
        if trainer.strategy.restore_checkpoint_after_setup and trainer.state.fn == TrainerFn.FITTING:
            self.on_fit_start(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the round that was left out when the run was to end here, if training goes on now."""
        checkpoint = run_checkpoint(trainer)
        ends = checkpoint is not None and checkpoint.phase == Phase.MEASURING
        if self._owed and not ends and isinstance(pl_module, CurriculumStage):
            self._regrow(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the non-unification score of the epoch, for ``patience``."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and isinstance(pl_module, CurriculumStage) and pl_module.schedule.patience:
            self._gaps[trainer.current_epoch + 1] = float(pl_module.results["non_unification"]["all"].value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Redraws the prompts nothing was accepted for, when it is time; never after the last epoch."""
        if not isinstance(pl_module, ImproveStage):
            return
        self._owed = isinstance(pl_module, CurriculumStage) and self._due(trainer.current_epoch + 1, pl_module.schedule)
        if self._owed and isinstance(pl_module, CurriculumStage) and not training_is_over(trainer):
            # a round belongs to the weights that drew it: killed while it is drawn, the run continues from these
            checkpoint = run_checkpoint(trainer)
            if checkpoint:
                checkpoint.save(trainer, Phase.DRAWING)
                checkpoint.obey(trainer)
            self._regrow(trainer, pl_module)

    def _regrow(self, trainer: Trainer, pl_module: CurriculumStage) -> None:
        self._owed = False
        stage, data, pool = self._house(trainer, pl_module, create=False)
        last = data.rounds - 1
        logits = pool.logits(stage.judge.name, upto=last)
        left = discarded_prompts(data.prompts, pool.candidates(upto=last), logits, stage.objective.threshold)
        rng = random.Random(f"{self.plan.seed}/{data.rounds}")
        chosen = _chosen(pl_module.schedule.redraw, data.prompts, left, rng)
        if chosen:
            self._draw(trainer, stage, pool, data.rounds, chosen)
            self._take(trainer, stage, data, pool, data.rounds + 1)

    def _due(self, epoch: int, schedule: RedrawSchedule) -> bool:
        """Whether the end of an epoch, counted from 1, is the time to redraw."""
        return schedule.names(epoch) or (
            schedule.patience > 0 and epoch in stalled_epochs(self._gaps, schedule.patience)
        )

    def _house(self, trainer: Trainer, stage: ImproveStage, create: bool) -> tuple[ImproveStage, PoolData, Pool]:
        data, ranks = stage.pool_data, ranks_of(trainer)
        digest = stage.model.codebook_digest()
        with ranks.together():
            if create and ranks.rank == 0:
                data.open_pool(digest, create=True)
        with ranks.together():
            return stage, data, data.open_pool(digest, create=False)

    def _draw(self, trainer: Trainer, stage: ImproveStage, pool: Pool, number: int, prompts: Sequence[Any]) -> None:
        ranks, checkpoint = ranks_of(trainer), run_checkpoint(trainer)
        total = len(prompts) * self.plan.candidates // ranks.world
        quiet = ranks.rank > 0 or not trainer.progress_bar_callback
        with tqdm(total=total, unit="image", desc=f"round {number}", disable=quiet, leave=False) as bar:

            def advance(images: int) -> None:
                bar.update(images)
                if checkpoint:
                    checkpoint.stop.check()

            judges, rule = stage.judges, (self.allocation, stage.objective.threshold)
            try:
                with trainer.precision_plugin.forward_context(), whole(stage.model):
                    collect_round(stage.model, prompts, judges, pool, number, self.plan, ranks, advance, *rule)
            except (ValueError, Stopped):
                if checkpoint:  # the others see that this one fails, not that it was asked to stop
                    checkpoint.obey(trainer)
                raise

    def _take(self, trainer: Trainer, stage: ImproveStage, data: PoolData, pool: Pool, rounds: int) -> None:
        with ranks_of(trainer).together():
            for number in range(rounds):
                stored, where = pool.recipe(number).get("judges", ()), f"round {number} of pool {pool.folder}"
                for judge in stage.judges:
                    check_same_judge(judge, stored, where)
            if stage.judge.asked_later:
                _check_heard(pool, stage.judge.name, rounds)
            data.refresh(stage.objective, stage.judge.name, rounds)
        if stage.objective.needs_reference:
            members = {c.id: c for row in data.rows for c in stage.objective.members(row)}
            key = reference_key(trainer, stage)
            known = pool.references(key)
            missing = [c for name, c in members.items() if name not in known]
            if missing:
                known = known | _reference(trainer, stage, missing)
                with ranks_of(trainer).together():
                    if trainer.is_global_zero:
                        pool.add_references(key, {c.id: known[c.id] for c in missing})
            data.use_references(known)
        self.counts = [_count(stage, data, pool, number) for number in range(rounds)]
        growth = {f"pool/{name}": count for name, count in self.counts[-1].items()}
        log_figures(trainer.loggers, growth, trainer.global_step)
        accepted, judged = (sum(count[name] for count in self.counts) for name in ("accepted", "judged"))
        if accepted == judged and trainer.is_global_zero:
            print(
                f"warning: pool {pool.folder}: the judge accepted all {judged} candidates, so it tells nothing apart; "
                "raise the threshold, or find out why it never says no",
                file=sys.stderr,
            )

    def state_dict(self) -> dict[str, Any]:
        """What deciding about the next replay depends on."""
        return {"gaps": self._gaps, "owed": self._owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues with the progress seen so far."""
        self._gaps, self._owed = state_dict["gaps"], state_dict["owed"]


def stalled_epochs(gaps: Mapping[int, float], patience: int) -> set[int]:
    """The epochs after which a gap has not fallen for ``patience`` validated epochs; each restarts the count.

    Args:
        gaps: The gap by epoch, of those that were validated; NaN where nothing could be measured.
        patience: Validated epochs without a new minimum, >= 1.

    >>> sorted(stalled_epochs({1: 0.5, 2: 0.5, 4: 0.4, 5: 0.6, 6: 0.4, 7: 0.4}, 2))
    [6]
    """
    best, stalled, found = math.inf, 0, set()
    for epoch, gap in sorted(gaps.items()):
        stalled = 0 if gap < best else stalled + 1
        best = min(best, gap) if gap == gap else best
        if stalled >= patience:
            stalled = 0
            found.add(epoch)
    return found


def _chosen(redraw: Redraw, prompts: Sequence[Prompt], left: Sequence[Prompt], rng: random.Random) -> list[Prompt]:
    if redraw == "all":
        return list(prompts)
    if redraw == "discarded":
        return list(left)
    discarded = {prompt.id for prompt in left}
    solved = [prompt for prompt in prompts if prompt.id not in discarded]
    return rng.sample(solved, min(len(left), len(solved)))


def _check_heard(pool: Pool, judge: str, rounds: int) -> None:
    """Makes sure that a judge who is asked later was asked about every round.

    Raises:
        ValueError: A round waits for the first word.
    """
    heard = {judgment.candidate_id for judgment in pool.judgments(judge, upto=rounds - 1)}
    drawn: dict[int, list[str]] = {}
    for candidate in pool.candidates(upto=rounds - 1):
        drawn.setdefault(candidate.round, []).append(candidate.id)
    for number, names in drawn.items():
        if heard.isdisjoint(names):
            raise ValueError(
                f"pool {pool.folder}: round {number} waits for the word of {judge!r} on {len(names)} drawings; "
                "unigap judge export and import, then go on with --resume auto"
            )


def reference_key(trainer: Trainer, stage: ImproveStage) -> str:
    """Name of the reference model in the pool: its weights, and the precision it is run in unless that is plain."""
    precision = str(trainer.precision)
    return stage.start_key if precision == PLAIN_PRECISION else f"{stage.start_key}/{precision}"


def _reference(trainer: Trainer, stage: ImproveStage, candidates: Sequence[Candidate]) -> dict[str, float]:
    """Log-likelihoods under the weights the stage started from, by candidate id; each process computes a share."""
    ranks = ranks_of(trainer)
    # whole batches are shared out: what is computed together does not depend on the number of processes
    batches = [candidates[i : i + REFERENCE_BATCH] for i in range(0, len(candidates), REFERENCE_BATCH)]
    mine = [candidate for batch in batches[ranks.rank :: ranks.world] for candidate in batch]
    with (
        ranks.together(),
        stage.model.with_state(stage.start_state),
        trainer.precision_plugin.forward_context(),
        whole(stage.model),
    ):
        found = image_likelihoods(stage.model, mine, REFERENCE_BATCH)
    return {name: logp for share in ranks.gather(json.dumps(found)) for name, logp in json.loads(share).items()}


def ranks_of(trainer: Trainer) -> Ranks:
    """The processes of a trainer."""

    def gather(said: str) -> list[str]:
        if trainer.world_size == 1:
            return [said]
        heard: list[str] = [""] * trainer.world_size
        torch.distributed.all_gather_object(heard, said)
        return heard

    return Ranks(trainer.global_rank, trainer.world_size, gather)


def _count(stage: ImproveStage, data: PoolData, pool: Pool, number: int) -> Counts:
    """How a round went.

    ``judged`` are the candidates the selecting judge has said anything of, as people may not have of all; the others
    are neither accepted nor trained on. ``right`` are all candidates the external judge accepts, ``truly_right`` those
    of them that were accepted; both are left out where it has not looked at all.
    """
    bar = threshold_logit(stage.objective.threshold)
    own = pool.logits(stage.judge.name, upto=number)
    external = {} if stage.external is None else pool.logits(stage.external.name, upto=number)
    every = pool.candidates(upto=number)
    drawn = [c.id for c in every if c.round == number]
    judged = [name for name in drawn if name in own]
    accepted = [name for name in judged if own[name] >= bar]
    counts = {
        "round": number,
        "prompts": len(pool.prompts(upto=number)[number]),
        "candidates": len(drawn),
        "judged": len(judged),
        "accepted": len(accepted),
        "discarded": len(discarded_prompts(data.prompts, every, own, stage.objective.threshold)),
        "pool_rows": len(stage.objective.rows(every, own)),
    }
    if external.keys() >= {*drawn}:
        counts["right"] = sum(external[name] > 0 for name in drawn)
        counts["truly_right"] = sum(external[name] > 0 for name in accepted)
    return counts
