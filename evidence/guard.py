"""The guard experiment: many small runs with clean and corrupted selection, each measured by the oracle too."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from evidence.arms import run_arms
from evidence.fit import fit
from evidence.guard_arms import GuardArm, GuardPlan
from evidence.guard_page import guard_page, guard_rows
from evidence.results_file import Result
from unigap.console.quiet import quiet_libraries
from unigap.files.durable import write_durable
from unigap.metrics.intervals import paired_difference
from unigap.models.janus import Janus
from unigap.stages import ImproveStage


class TruthLog(Callback):
    """Log what the oracle accepts of the validation images, before training and at every validation.

    Place it behind ``Guard``, which samples the images before training.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._start: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the model before training."""
        self._measure(pl_module, 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the model after an epoch."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._measure(pl_module, trainer.current_epoch + 1)

    def _measure(self, module: LightningModule, epoch: int) -> None:
        assert isinstance(module, ImproveStage)
        now = module.meter.meters["category"]["generation"].rows()  # type: ignore[index]
        start = self._start = self._start or now
        arms = [(r["truth"].double(), torch.ones(len(r["truth"])), r["prompt"]) for r in (start, now)]
        change = paired_difference(arms[0], arms[1]).to_dict()
        truth = now["truth"].double().mean().item()
        self.rows.append({"epoch": epoch, "generation": truth, "generation_change": change})

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, which the evidence reads from the checkpoint."""
        return {"rows": self.rows}


def guard_evidence(plan: GuardPlan, jobs: int, out: Path) -> list[Path]:
    """Make the runs that ``out/guard.parquet`` does not hold yet, and write ``guard.md`` and its figures.

    Args:
        plan: The setting.
        jobs: Runs made at once, each on one thread.
        out: Folder of the page and of the runs; more seeds are added to those that are there.

    Returns:
        The page, and its figures as JSON.

    Raises:
        ValueError: When the file holds runs of another setting.
    """
    settings = dataclasses.asdict(plan) | {"weights": Janus(plan.checkpoint).weights_digest()}
    recipe = {name: value for name, value in settings.items() if name != "seeds"}
    arms = {arm.name: functools.partial(guarded_run, plan, arm) for arm in plan.arms()}
    runs = list(run_arms(out / "guard.parquet", recipe, arms, jobs).values())
    page, figures = out / "guard.md", out / "guard.json"
    write_durable(page, guard_page(settings, runs).encode())
    write_durable(figures, json.dumps({"settings": settings, "rows": guard_rows(runs)}, indent=1).encode())
    return [page, figures]


@quiet_libraries()
def guarded_run(plan: GuardPlan, arm: GuardArm) -> Result:
    """Train to the end with a guard that warns and does not act."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(arm.objective, Path(folder) / "run", plan.options(arm))
        drawn = trained.rounds[0]
    guard, truth = trained.callback_state("Guard")["history"], trained.callback_state("TruthLog")["rows"]
    seconds = round(time.process_time() - began, 1)
    return dataclasses.asdict(arm) | {"drawn": drawn, "guard": guard, "truth": truth, "cpu_seconds": seconds}
