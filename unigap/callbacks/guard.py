"""Co-degradation guard: detect, without an external judge, that training makes the judge or the images worse."""

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
from unigap.stages.sharded import refuse_sharded

Action = Literal["stop", "rollback", "warn"]


class Guard(Callback):
    """Test the model at every validation, and act when its judge or its images have become worse.

    The non-unification score falls both when images improve and when the judge collapses into saying yes. Images with
    true and false captions (the probe set) distinguish the two. If the judge is unchanged on the probe set but accepts
    fewer validation images than at the start, for the same prompts and seeds, the images have become worse. Logs
    ``guard/auroc``, ``guard/brier``, ``guard/yes_rate`` and ``guard/accepted``, the change of each since the start of
    the run as ``guard/..._change``, and ``guard/sound``, 1 if no change is harmful.

    The guard fires when a change is harmful (see ``judge_drift.harms``) at ``patience`` validations in a row. A
    rollback restores the trainable weights of the last sound validation, clears the optimizer's moments, and continues
    training. The copy of the weights is part of every checkpoint.

    Args:
        action: ``stop`` ends the run, ``rollback`` restores the last sound weights, ``warn`` only prints a warning.
        pairs: The probe set; null takes that of the world whose prompts are trained or evaluated on.
        n: Number of its pairs.
        confidence: Confidence of each paired interval, in (0, 1).
        tolerance: Harmful change that is still ignored, in [0, 1).
        patience: Harmful validations in a row until the guard fires.
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
        """Load the probe set, and refuse runs without validation."""
        if stage != "fit":
            return
        if not isinstance(pl_module, ImproveStage):
            raise ValueError(f"Guard watches self-improvement stages, not {type(pl_module).__name__}; remove it")
        if not trainer.limit_val_batches:
            raise ValueError("Guard looks at every validation and there is none; set trainer.limit_val_batches")
        if self.action == "rollback":
            refuse_sharded(trainer, "Guard's rollback")
        self.probe_set = self._known_pairs(pl_module).load(self.n)

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
        if self._start_E is None:
            self._start_E, self._pairs_key = self._probe_logits(pl_module), key
            self._start_drawn = pl_module.look().own_verdicts()
            self._keep(pl_module)
        elif key != self._pairs_key:
            raise ValueError("Guard: this run began with other known pairs; give the same pairs and n to resume it")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test the model, log the results, and act when it has become worse."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        assert isinstance(pl_module, ImproveStage) and self._start_E is not None
        drift = judge_drift(
            self._start_E,
            self._probe_logits(pl_module),
            self.probe_set.truth_B,
            self.probe_set.cluster_B,
            self.confidence,
            self.tolerance,
            _in_both(self._start_drawn, pl_module.meter.own_verdicts()),
        )
        # ranks on different hardware may differ in the last digit, but must take the same decision
        unsound = trainer.strategy.reduce_boolean_decision(bool(drift.harms), all=False)
        self._unsound = self._unsound + 1 if unsound else 0
        fires = self._unsound >= self.patience
        self._log(pl_module, drift, unsound)
        self.history.append(_row(trainer.current_epoch + 1, drift, unsound, fires))
        if fires:
            self._act(trainer, pl_module, drift)
        elif not unsound:
            self._keep(pl_module)

    def _probe_logits(self, stage: ImproveStage) -> torch.Tensor:
        return probe_logits(stage.model, self.probe_set, stage.own_judge)

    def _keep(self, stage: ImproveStage) -> None:
        if self.action == "rollback":
            self._sound_weights = {name: value.cpu() for name, value in stage.model.trainable_state().items()}

    def _log(self, stage: ImproveStage, drift: JudgeDrift, unsound: bool) -> None:
        figures = {f"guard/{name}": value for name, value in drift.now.items()}
        figures |= {f"guard/{name}_change": change.value for name, change in drift.change.items()}
        stage.log_dict(figures | {"guard/sound": float(not unsound)}, rank_zero_only=True)

    def _act(self, trainer: Trainer, stage: ImproveStage, drift: JudgeDrift) -> None:
        changes = ", ".join(f"{name} {drift.change[name].value:+.3f}" for name in drift.harms)
        sound = max((row["epoch"] for row in self.history if row["sound"]), default=0)
        done = {"stop": "stopped", "rollback": "weights rolled back", "warn": "going on"}[self.action]
        if trainer.is_global_zero:
            print(
                f"warning: guard: judge or drawings are worse than at the start ({changes}; the judge on {self.n} "
                f"known pairs, accepted drawings by the judge itself); last sound epoch: {sound}; {done}",
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
        """Return the judge's first answers, the results since then, and the weights for a rollback."""
        return {
            "start": self._start_E,
            "drawn": self._start_drawn,
            "pairs": self._pairs_key,
            "history": self.history,
            "unsound": self._unsound,
            "sound_weights": self._sound_weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first answers and the results."""
        self._start_E, self._start_drawn = state_dict["start"], state_dict["drawn"]
        self._pairs_key = state_dict["pairs"]
        self.history, self._unsound = state_dict["history"], state_dict["unsound"]
        self._sound_weights = state_dict["sound_weights"]


def _in_both(
    start: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return old and new log-odds and the prompts of the samples in both; validation may cover only part of them."""
    then_S, here_S = torch.isin(start["sample"], now["sample"]), torch.isin(now["sample"], start["sample"])
    return start["logit"][then_S], now["logit"][here_S], now["prompt"][here_S]


def _row(epoch: int, drift: JudgeDrift, unsound: bool, fired: bool) -> dict[str, Any]:
    change = {name: estimate.to_dict() for name, estimate in drift.change.items()}
    verdict = {"sound": not unsound, "fired": fired}
    details = {"true_share": drift.true_share, "harms": list(drift.harms)}
    return {"epoch": epoch, "now": drift.now, "change": change, **details, **verdict}


def _digest(probe_set: ProbeSet) -> str:
    sha = hashlib.sha256(probe_set.pixels_BCHW.numpy().tobytes())
    sha.update(repr((probe_set.claims, probe_set.truth_B.tolist())).encode())
    return sha.hexdigest()


@torch.no_grad()
def _put_back(stage: ImproveStage, weights: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(stage.model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
