"""Co-degradation guard: detect, without an external judge, that training makes the judge or the images worse."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from unigap.callbacks.guard_figures import PictureFigures, accepted_figure, redrawn_figure
from unigap.callbacks.guard_watches import GROUPED, absent_figures, check_tolerances, chosen_watches
from unigap.evaluation.gap import probe_logits
from unigap.evaluation.gap_meter import GapMeter
from unigap.evaluation.image_features import ImageFeatures, PixelFeatures
from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource
from unigap.loop.ranks import ranks_of
from unigap.metrics.judge_figures import judge_figures
from unigap.metrics.watches import Finding, UnitValues, Watch, WatchRecord, level
from unigap.stages import ImproveStage
from unigap.stages.sharded import refuse_sharded

Action = Literal["stop", "rollback", "warn"]
PICTURES = ("spread", "edges", "code_entropy", "duplicates")


class Guard(Callback):
    """Test the model at every validation, and act when its judge or its images have become worse.

    The non-unification score falls both when images improve and when the judge collapses into saying yes, so several
    figures are watched. Of the judge, on images with true and false captions (the probe set): ``auroc``, ``brier`` and
    ``yes_bias``, the share of yes minus that of true captions. Of the images for validation prompts: ``accepted``, the
    share that the model's own judge accepts; ``spread``, the distance between images of a prompt; ``edges``, the share
    of pixels on an edge; ``code_entropy`` in nats, where images are codes; ``duplicates``, the share that repeats
    another image of the prompt. Of a pool that is redrawn for all prompts: ``redrawn``, the share of the images drawn
    since the last validation that the selecting judge accepts, on prompts that were drawn before. Figures that a run
    does not have are left out.

    At each validation, the average since the best validation so far is compared with the best. The probability that the
    guard ever fires in a run in which no figure became worse by more than its tolerance is at most ``error_rate``:
    alpha spending over validations, Bonferroni over figures and possible best validations, and paired t-tests over
    prompts, whose level is asymptotic in their number. See ``unigap.metrics.watches``.

    Logs each figure as ``guard/NAME``, its change since the start of the run as ``guard/NAME_change``, its change since
    the best validation as ``guard/NAME_from_best``, and ``guard/sound``, 1 if no figure is worse. A rollback restores
    the trainable weights of the last sound validation, clears the optimizer's moments, and continues training. The copy
    of the weights is part of every checkpoint.

    Args:
        action: ``stop`` ends the run, ``rollback`` restores the last sound weights, ``warn`` only prints a warning.
        pairs: The probe set; null takes that of the world whose prompts are trained or evaluated on.
        n: Number of its pairs.
        error_rate: Largest probability of a false alarm in a whole run, in (0, 1).
        tolerances: Change for the worse that is ignored, by figure, in [0, 1); null leaves a figure out. For
            ``spread``, ``edges`` and ``code_entropy`` it is a share of the best value.
        features: What the distance of ``spread`` is measured in; null is plain pixels.
    """

    def __init__(
        self,
        action: Action = "stop",
        pairs: ProbeSource | None = None,
        n: int = 600,
        error_rate: float = 0.05,
        tolerances: dict[str, float | None] | None = None,
        features: ImageFeatures | None = None,
    ) -> None:
        if action not in ("stop", "rollback", "warn"):
            raise ValueError(f"unknown action {action!r}; choose one of: stop, rollback, warn")
        if n < 4:
            raise ValueError(f"n must be >= 4, got {n}")
        if not 0 < error_rate < 1:
            raise ValueError(f"error_rate must be in (0, 1), got {error_rate}; 0.05 is usual")
        check_tolerances(tolerances or {})
        self.action, self.pairs, self.n, self.error_rate = action, pairs, n, error_rate
        self.tolerances, self.features = tolerances or {}, features or PixelFeatures()
        self.history: list[dict[str, Any]] = []
        self.records: dict[str, WatchRecord] = {}
        self._saved: dict[str, Any] = {}
        self._pairs_key = ""
        self._rounds = 0
        self._sound_weights: dict[str, torch.Tensor] = {}

    @property
    def fired(self) -> list[int]:
        """The epochs, counted from 1, after which the guard fired."""
        return [row["epoch"] for row in self.history if not row["sound"]]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the probe set, choose the figures, and refuse runs without validation."""
        if stage != "fit":
            return
        if not isinstance(pl_module, ImproveStage):
            raise ValueError(f"Guard watches self-improvement stages, not {type(pl_module).__name__}; remove it")
        if not trainer.limit_val_batches:
            raise ValueError("Guard looks at every validation and there is none; set trainer.limit_val_batches")
        if self.action == "rollback":
            refuse_sharded(trainer, "Guard's rollback")
        self.watches = {watch.name: watch for watch in chosen_watches(pl_module, self.tolerances)}
        self._pictures = PictureFigures(self.features, [name for name in PICTURES if name in self.watches])
        self.probe_set = self._known_pairs(pl_module).load(self.n)
        if self.probe_set.truth_B.all() or not self.probe_set.truth_B.any():
            raise ValueError("Guard needs true and false captions, and these pairs have only one kind; add the other")
        missing = [name for name in GROUPED if name in absent_figures(pl_module) and name not in self.tolerances]
        if missing and trainer.is_global_zero:
            print(
                f"warning: guard: {' and '.join(missing)} cannot be watched with one image for each validation prompt; "
                "set model.eval_plan.candidates to 2 or more",
                file=sys.stderr,
            )

    def _known_pairs(self, stage: ImproveStage) -> ProbeSource:
        if self.pairs is not None:
            return self.pairs
        world = stage.pool_data.world
        if world is None:
            raise ValueError(
                "Guard needs images with true and false captions, which data.prompts does not bring along; "
                "set pairs, e.g. to unigap.evaluation.probe_sources.CaptionedFile"
            )
        return world.probe_source("validation", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test the model before training; a resumed run keeps its first results."""
        assert isinstance(pl_module, ImproveStage)
        key = _digest(self.probe_set)
        if self._saved:
            if key != self._pairs_key:
                raise ValueError("Guard: this run began with other known pairs; give the same pairs and n to resume it")
            self.records = {
                name: WatchRecord.from_state(self.watches[name], state)
                for name, state in self._saved.items()
                if name in self.watches
            }
            return
        self._pairs_key = key
        figures = self._figures(trainer, pl_module, pl_module.look(self._see))
        self.records = {name: WatchRecord(self.watches[name], figure) for name, figure in figures.items()}
        self._keep(pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any, **place: Any
    ) -> None:
        """Look at the images of a batch."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._see(outputs)

    def _see(self, outputs: Mapping[str, Any]) -> None:
        if self._pictures.names:
            self._pictures.add(outputs["sampled"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test the model, log the results, and act when it has become worse."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        assert isinstance(pl_module, ImproveStage)
        number, found = len(self.history) + 1, {}
        for name, figure in self._figures(trainer, pl_module, pl_module.meter).items():
            if name in self.records:
                found[name] = self.records[name].add(number, figure)
        least = level(self.error_rate, number, len(self.watches))
        harms = [name for name, finding in found.items() if finding.p_value <= least]
        # ranks on different hardware may differ in the last digit, but must take the same decision
        sound = not trainer.strategy.reduce_boolean_decision(bool(harms), all=False)
        self._log(pl_module, found, sound)
        figures = {name: finding.to_dict() for name, finding in found.items()}
        row = {"epoch": trainer.current_epoch + 1, "figures": figures, "level": least}
        self.history.append({**row, "harms": harms, "sound": sound})
        if not sound:
            self._act(trainer, pl_module, {name: found[name] for name in harms})
        else:
            self._keep(pl_module)

    def _figures(self, trainer: Trainer, stage: ImproveStage, meter: GapMeter) -> dict[str, UnitValues]:
        """Return the watched figures; collective."""
        logit_E = probe_logits(stage.model, self.probe_set, stage.own_judge)
        figures = judge_figures(logit_E, self.probe_set.truth_B, self.probe_set.cluster_B)
        figures["accepted"] = accepted_figure(meter)
        if self._pictures.names:
            figures |= self._pictures.gathered(ranks_of(trainer), meter.clusters)
        if "redrawn" in self.watches:
            rounds = range(self._rounds, stage.pool_data.rounds)
            self._rounds = stage.pool_data.rounds
            redrawn = redrawn_figure(stage, rounds)
            figures |= {} if redrawn is None else {"redrawn": redrawn}
        return {name: figure for name, figure in figures.items() if name in self.watches}

    def _keep(self, stage: ImproveStage) -> None:
        if self.action == "rollback":
            self._sound_weights = {name: value.cpu() for name, value in stage.model.trainable_state().items()}

    def _log(self, stage: ImproveStage, found: Mapping[str, Finding], sound: bool) -> None:
        for name, finding in found.items():
            measured = {"": finding.now, "_change": finding.change.value, "_from_best": finding.from_best.moved}
            known = {f"guard/{name}{end}": value for end, value in measured.items() if not math.isnan(value)}
            stage.log_dict(known, rank_zero_only=True)
        stage.log("guard/sound", float(sound), rank_zero_only=True)

    def _act(self, trainer: Trainer, stage: ImproveStage, harms: Mapping[str, Finding]) -> None:
        changes = "; ".join(_told(self.watches[name], finding, self._epoch(finding)) for name, finding in harms.items())
        sound = max((row["epoch"] for row in self.history if row["sound"]), default=0)
        done = {"stop": "stopped", "rollback": "weights rolled back", "warn": "going on"}[self.action]
        if trainer.is_global_zero:
            print(
                f"warning: guard: judge or images are worse than at their best validation ({changes}); last sound "
                f"epoch: {sound}; {done}",
                file=sys.stderr,
            )
        if self.action == "stop":
            trainer.should_stop = True
        elif self.action == "rollback":
            _put_back(stage, self._sound_weights)
            for record in self.records.values():
                record.forget()
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def _epoch(self, finding: Finding) -> int:
        return self.history[finding.since - 1]["epoch"] if finding.since else 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept of each figure, the results so far, and the weights for a rollback."""
        return {
            "records": {name: record.state_dict() for name, record in self.records.items()},
            "pairs": self._pairs_key,
            "rounds": self._rounds,
            "history": self.history,
            "sound_weights": self._sound_weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the figures and the results.

        Raises:
            ValueError: The checkpoint was written by an earlier version, whose guard kept other figures.
        """
        if "records" not in state_dict:
            raise ValueError(
                "Guard: the checkpoint is of an earlier version, whose guard kept other figures; remove the callback, "
                "or begin a new run"
            )
        self._saved, self._pairs_key = state_dict["records"], state_dict["pairs"]
        self._rounds, self.history = state_dict["rounds"], state_dict["history"]
        self._sound_weights = state_dict["sound_weights"]


def _told(watch: Watch, finding: Finding, epoch: int) -> str:
    found = finding.from_best
    return f"{watch.name} {found.before:.3f} -> {found.now:.3f} since epoch {epoch}, tolerance {watch.tolerance:g}"


def _digest(probe_set: ProbeSet) -> str:
    sha = hashlib.sha256(probe_set.pixels_BCHW.numpy().tobytes())
    sha.update(repr((probe_set.claims, probe_set.truth_B.tolist())).encode())
    return sha.hexdigest()


@torch.no_grad()
def _put_back(stage: ImproveStage, weights: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(stage.model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
