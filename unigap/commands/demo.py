"""The whole loop on the embedded world in a few minutes: gap before, self-improvement with replay, gap after."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from unigap.callbacks import CurveLog, Regrow, RowLog, RunSummary
from unigap.console.quiet import quiet_libraries
from unigap.data import PoolData
from unigap.judges import Judge, SelfJudge
from unigap.metrics.gap_table import print_comparison
from unigap.models.base import SamplingRecipe
from unigap.models.families import load_model
from unigap.objectives import SFT, Objective
from unigap.pages.report import write_report
from unigap.quiet_fit import quiet_trainer
from unigap.rounds import RoundPlan
from unigap.stages import CurriculumStage
from unigap.storage.manifest import write_durable

LoggerName = Literal["csv", "wandb"]
MARK = "demo.json"
"""The plan of a demonstration, written before anything else: what tells its folder from others."""


@dataclasses.dataclass(frozen=True)
class DemoPlan:
    """What a demonstration run does.

    Attributes:
        checkpoint: The model, a shipped one by its name or a folder.
        seed: Seed of candidates, training order and evaluation drawings.
        per_cell: Training prompts for each (category, difficulty).
        candidates: Images drawn for each training prompt.
        epochs: Epochs of training; discarded prompts are redrawn after each but the last.
        lr: Learning rate.
        batch_size: Rows a step.
        eval_per_cell: Test prompts for each (category, difficulty).
        eval_candidates: Images drawn for each test prompt.
        exam: Rendered pictures on which understanding is examined.
    """

    checkpoint: str = "shapes"
    seed: int = 0
    per_cell: int = 60
    candidates: int = 8
    epochs: int = 4
    lr: float = 1.5e-4
    batch_size: int = 32
    eval_per_cell: int = 20
    eval_candidates: int = 4
    exam: int = 600


def show_demo(out: str, seed: int, checkpoint: str, logger: LoggerName, overwrite: bool) -> None:
    """Runs the demonstration and shows what came of it: a table, ``summary.json`` and ``report.html`` in ``out``."""
    plan = DemoPlan(checkpoint=checkpoint, seed=seed)
    summary = run_demo(plan, prepare_folder(out, overwrite), logger, SelfJudge(), SFT(keep=4))
    print_comparison(summary)
    print(f"\nreport: {write_report(out)}")


def prepare_folder(out: str, overwrite: bool) -> Path:
    """An empty run folder.

    Raises:
        ValueError: When it holds something; an earlier demonstration is replaced where ``overwrite`` says so, and
            nothing else ever is.
    """
    folder = Path(out)
    if folder.is_file():
        raise ValueError(f"--out {out!r} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file() or not overwrite:
            raise ValueError(f"--out {out!r} is not empty; choose another folder, or --overwrite an earlier demo there")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@quiet_libraries()
def run_demo(plan: DemoPlan, folder: Path, logger: LoggerName, judge: Judge, objective: Objective) -> dict[str, Any]:
    """Measures, improves, measures again; writes summary, curves and gallery, and returns the summary."""
    model = load_model(plan.checkpoint)
    sampling = SamplingRecipe(cfg=model.usual_cfg)
    recipe = dataclasses.asdict(plan) | {
        "cfg": sampling.cfg,
        "judge": judge.name,
        "objective": type(objective).__name__,
    }
    write_durable(folder / MARK, json.dumps(recipe, indent=1).encode())
    # every other seed is given to its owner
    torch.manual_seed(plan.seed)
    stage = CurriculumStage(
        model,
        objective,
        judge=judge,
        lr=plan.lr,
        eval_plan=RoundPlan(2, sampling, seed=500_000),
        warmup_steps=10,
    )
    data = PoolData(
        pool=str(folder / "pool"),
        batch_size=plan.batch_size,
        per_cell=plan.per_cell,
        eval_per_cell=8,
        exam_pictures=0,
        seed=plan.seed,
    )
    test = RoundPlan(plan.eval_candidates, sampling, seed=1_000_000 + plan.seed)
    summary = RunSummary(str(folder), "shapes", per_cell=plan.eval_per_cell, plan=test, exam=plan.exam, exam_seed=0)
    summary.describe(plan.checkpoint, recipe)
    curves, rows = CurveLog(str(folder)), RowLog(str(folder / "rows.jsonl"))
    regrow = Regrow(RoundPlan(plan.candidates, sampling, seed=plan.seed))
    trainer = quiet_trainer(
        [regrow, curves, rows, summary],
        max_epochs=plan.epochs,
        logger=_logger(logger, folder),
        enable_progress_bar=True,
        log_every_n_steps=10,
    )
    trainer.validate(stage, datamodule=data, verbose=False)
    curves.add(0, stage, None)
    trainer.fit(stage, datamodule=data)
    return summary.result


def _logger(name: LoggerName, folder: Path) -> Logger:
    if name == "wandb":
        return WandbLogger(project="unigap", save_dir=folder, offline=True, group="demo")
    return CSVLogger(folder, name="", version="csv")
