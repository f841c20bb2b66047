"""The co-degradation guard: notices that training spoils judge or drawings, with nobody who knows better."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from unigap.evaluation.gap import probe_logits
from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource
from unigap.metrics.judge_drift import JudgeDrift, judge_drift
from unigap.stages import ImproveStage
from unigap.stages.base import refuse_sharded

Action = Literal["stop", "rollback", "warn"]


class Guard(Callback):
    """Examines the model at every validation, and acts when its judge or its drawings have become worse.

    The non-unification score falls both when drawings improve and when the judge collapses into saying yes; images
    whose captions are known to match or not tell the two apart. While the judge holds there, validation drawings that
    it accepts less often than those of the start, for the same prompts and seeds, have got worse. Logged as
    ``guard/auroc``, ``guard/brier``, ``guard/yes_rate`` and ``guard/accepted``, the change of each since the start of
    the run as ``guard/..._change``, and ``guard/sound``.

    The guard fires when a change is harm (see ``judge_drift.harms``) at ``patience`` validations in a row. A roll-back
    puts the trainable weights back to the last sound validation, forgets the moments of the optimiser, which led
    away from there, and goes on; the copy travels in every checkpoint.

    Args:
        action: ``stop`` ends the run, ``rollback`` puts the last sound weights back, ``warn`` only says so.
        pairs: The known pairs; null takes those of the world whose prompts are
            trained or evaluated on.
        n: How many of them.
        confidence: Of each paired interval, in (0, 1).
        tolerance: How far a reading may move for the worse before it counts, in [0, 1).
        patience: Unsound validations in a row until the guard fires.
    """

    def __init__(
        self,
        action: Action = "stop",
        pairs: ProbeSource | None = None,
        n: int = 600,
        confidence: float = 0.99,
        tolerance: float = 0.02,
        patience: int = 2,
    ) -> None:
        if action not in ("stop", "rollback", "warn"):
            raise ValueError(f"unknown action {action!r}; choose one of: stop, rollback, warn")
        for name, value, least in (("n", n, 4), ("patience", patience, 1)):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {tolerance}")
        self.action, self.pairs, self.n = action, pairs, n
        self.confidence, self.tolerance, self.patience = confidence, tolerance, patience
        self.history: list[dict[str, Any]] = []
        self._start_E: torch.Tensor | None = None
        self._start_drawn: dict[str, torch.Tensor] = {}
        self._pairs_key = ""
        self._sound_weights: dict[str, torch.Tensor] = {}
        self._unsound = 0

    @property
    def fired(self) -> list[int]:
        """The epochs, counted from 1, after which the guard fired."""
        return [row["epoch"] for row in self.history if row["fired"]]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the pairs, and refuses runs in which it could never look at them."""
        if stage != "fit":
            return
        if not isinstance(pl_module, ImproveStage):
            raise ValueError(f"Guard watches self-improvement stages, not {type(pl_module).__name__}; remove it")
        if not trainer.limit_val_batches:
            raise ValueError("Guard looks at every validation and there is none; set trainer.limit_val_batches")
        if self.action == "rollback":
            refuse_sharded(trainer, "Guard's rollback")
        self.exam = self._known_pairs(pl_module).load(self.n)

    def _known_pairs(self, stage: ImproveStage) -> ProbeSource:
        if self.pairs is not None:
            return self.pairs
        world = stage.pool_data.world
        if world is None:
            raise ValueError(
                "Guard needs images with true and false captions, which data.prompts does not bring along; "
                "set pairs, e.g. to unigap.evaluation.probe_sources.CaptionedFile"
            )
        return world.probe_source("validation", 1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Examines the model as it is before training; a resumed run keeps the start it had."""
        assert isinstance(pl_module, ImproveStage)
        key = _digest(self.exam)
        if self._start_E is None:
            self._start_E, self._pairs_key = self._sit(pl_module), key
            self._start_drawn = pl_module.look().own_verdicts()
            self._keep(pl_module)
        elif key != self._pairs_key:
            raise ValueError("Guard: this run began with other known pairs; give the same pairs and n to resume it")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Examines the model, logs what it finds, and acts when it has become worse."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        assert isinstance(pl_module, ImproveStage) and self._start_E is not None
        drift = judge_drift(
            self._start_E,
            self._sit(pl_module),
            self.exam.truth_B,
            self.exam.cluster_B,
            self.confidence,
            self.tolerance,
            _in_both(self._start_drawn, pl_module.meter.own_verdicts()),
        )
        # ranks on unlike machines may differ in the last digit, and must not part ways over it
        unsound = trainer.strategy.reduce_boolean_decision(bool(drift.harms), all=False)
        self._unsound = self._unsound + 1 if unsound else 0
        fires = self._unsound >= self.patience
        self._log(pl_module, drift, unsound)
        self.history.append(_row(trainer.current_epoch + 1, drift, unsound, fires))
        if fires:
            self._act(trainer, pl_module, drift)
        elif not unsound:
            self._keep(pl_module)

    def _sit(self, stage: ImproveStage) -> torch.Tensor:
        return probe_logits(stage.model, self.exam, stage.own_judge)

    def _keep(self, stage: ImproveStage) -> None:
        if self.action == "rollback":
            self._sound_weights = {name: value.cpu() for name, value in stage.model.trainable_state().items()}

    def _log(self, stage: ImproveStage, drift: JudgeDrift, unsound: bool) -> None:
        figures = {f"guard/{name}": value for name, value in drift.now.items()}
        figures |= {f"guard/{name}_change": change.value for name, change in drift.change.items()}
        stage.log_dict(figures | {"guard/sound": float(not unsound)}, rank_zero_only=True)

    def _act(self, trainer: Trainer, stage: ImproveStage, drift: JudgeDrift) -> None:
        told = ", ".join(f"{name} {drift.change[name].value:+.3f}" for name in drift.harms)
        sound = max((row["epoch"] for row in self.history if row["sound"]), default=0)
        done = {"stop": "stopped", "rollback": "weights rolled back", "warn": "going on"}[self.action]
        if trainer.is_global_zero:
            print(
                f"warning: guard: judge or drawings are worse than at the start ({told}; the judge on {self.n} known "
                f"pairs, accepted drawings by the judge itself); last sound epoch: {sound}; {done}",
                file=sys.stderr,
            )
        self._unsound = 0
        if self.action == "stop":
            trainer.should_stop = True
        elif self.action == "rollback":
            _put_back(stage, self._sound_weights)
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """The judge's answers at the start, what was found since, and the weights to go back to."""
        return {
            "start": self._start_E,
            "drawn": self._start_drawn,
            "pairs": self._pairs_key,
            "history": self.history,
            "unsound": self._unsound,
            "sound_weights": self._sound_weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues with the same start."""
        self._start_E, self._start_drawn = state_dict["start"], state_dict["drawn"]
        self._pairs_key = state_dict["pairs"]
        self.history, self._unsound = state_dict["history"], state_dict["unsound"]
        self._sound_weights = state_dict["sound_weights"]


def _in_both(
    start: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-odds then and now of the drawings both hold, where validation takes a part of the prompts, and prompts."""
    then_S, here_S = torch.isin(start["sample"], now["sample"]), torch.isin(now["sample"], start["sample"])
    return start["logit"][then_S], now["logit"][here_S], now["prompt"][here_S]


def _row(epoch: int, drift: JudgeDrift, unsound: bool, fired: bool) -> dict[str, Any]:
    change = {name: estimate.to_dict() for name, estimate in drift.change.items()}
    verdict = {"sound": not unsound, "fired": fired}
    said = {"true_share": drift.true_share, "harms": list(drift.harms)}
    return {"epoch": epoch, "now": drift.now, "change": change, **said, **verdict}


def _digest(exam: ProbeSet) -> str:
    sha = hashlib.sha256(exam.pixels_BCHW.numpy().tobytes())
    sha.update(repr((exam.claims, exam.truth_B.tolist())).encode())
    return sha.hexdigest()


@torch.no_grad()
def _put_back(stage: ImproveStage, weights: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(stage.model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
