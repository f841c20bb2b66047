"""``unigap demo``: measure the gap, self-improve with replay, measure again, on the embedded world in minutes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from unigap.callbacks import CurveLog, Regrow, RowLog, RunSummary
from unigap.callbacks.run_progress import RunProgress
from unigap.cli.commands.demo_folder import MARK, check_demo_folder, empty_demo_folder
from unigap.cli.commands.model_choice import DEFAULT, ModelChoice
from unigap.console.closing import close
from unigap.console.quiet import quiet_libraries
from unigap.data import PoolData
from unigap.files.durable import write_durable
from unigap.judges import Judge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.objectives import SFT, Objective
from unigap.report.gap_table import print_comparison
from unigap.report.pages.report import write_report
from unigap.stages import CurriculumStage
from unigap.stages.quiet_trainer import quiet_trainer

LoggerName = Literal["csv", "wandb"]


@dataclasses.dataclass(frozen=True)
class DemoPlan:
    """Settings of a demo.

    Attributes:
        checkpoint: The model: a shipped one by its name, or a folder.
        seed: Seed of candidates, training order and test images.
        per_cell: Training prompts for each (category, difficulty).
        candidates: Images sampled for each training prompt.
        epochs: Epochs of training; discarded prompts are redrawn after each but the last.
        lr: Learning rate.
        batch_size: Rows in a step.
        eval_per_cell: Test prompts for each (category, difficulty).
        eval_candidates: Images sampled for each test prompt.
        exam: Rendered images of the probe set that measures understanding.
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


def demo(
    out: str = "runs/demo",
    seed: int = 0,
    checkpoint: str | None = None,
    logger: LoggerName = "csv",
    overwrite: bool = False,
    *,
    model: UnifiedModel | None = None,
) -> None:
    """Watch the gap close on the embedded world: about two minutes on two CPU cores.

    Args:
        out: Folder for the report, the summary and the pool.
        seed: Seed of all random numbers, in [0, 2 ** 32).
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, or a run of ``unigap fit``.
        logger: Logger of the curves: ``csv``, or ``wandb`` in offline mode (``wandb sync`` uploads it).
        overwrite: Replace an earlier demo in ``out``.
        model: A model of your own by its class path, instead of ``checkpoint``.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2 ** 32), got {seed}")
    plan = DemoPlan(checkpoint=type(model).__name__ if model else checkpoint or DEFAULT, seed=seed)
    folder = check_demo_folder(out, overwrite, [field.name for field in dataclasses.fields(plan)])
    chosen = ModelChoice(checkpoint, model).load()  # before an earlier demo is removed
    empty_demo_folder(folder)
    summary = _run(chosen, plan, folder, logger, SelfJudge(), SFT(keep=4))
    page = write_report(out)
    print_comparison(summary)
    print()
    close({"report": page}, f"open {page} in a browser")


def run_demo(
    plan: DemoPlan,
    folder: Path,
    logger: LoggerName,
    judge: Judge,
    objective: Objective,
    choice: ModelChoice | None = None,
) -> dict[str, Any]:
    """Measure, train, and measure again; write summary, curves and gallery, and return the summary.

    Args:
        plan: The settings.
        folder: Folder of the demo.
        logger: Name of the logger.
        judge: The judge that selects.
        objective: The objective to train.
        choice: The model; None takes the checkpoint of ``plan``.
    """
    return _run((choice or ModelChoice(plan.checkpoint)).load(), plan, folder, logger, judge, objective)


@quiet_libraries()
def _run(
    model: UnifiedModel, plan: DemoPlan, folder: Path, logger: LoggerName, judge: Judge, objective: Objective
) -> dict[str, Any]:
    sampling = SamplingRecipe(cfg=model.usual_cfg)
    recipe = dataclasses.asdict(plan) | {
        "cfg": sampling.cfg,
        "judge": judge.name,
        "objective": type(objective).__name__,
    }
    write_durable(folder / MARK, json.dumps(recipe, indent=1).encode())
    # initial weights; every other seed is passed as an argument
    torch.manual_seed(plan.seed)
    data = PoolData(
        pool=str(folder / "pool"),
        batch_size=plan.batch_size,
        per_cell=plan.per_cell,
        eval_per_cell=8,
        exam_pictures=0,
        seed=plan.seed,
    )
    stage = CurriculumStage(
        model,
        objective,
        judge=judge,
        external=data.world and data.world.external(),
        lr=plan.lr,
        eval_plan=RoundPlan(2, sampling, seed=500_000),
        warmup_steps=10,
    )
    test = RoundPlan(plan.eval_candidates, sampling, seed=1_000_000 + plan.seed)
    summary = RunSummary(str(folder), "shapes", per_cell=plan.eval_per_cell, plan=test, exam=plan.exam, exam_seed=0)
    summary.describe(plan.checkpoint, recipe)
    curves, rows = CurveLog(str(folder)), RowLog(str(folder / "rows.jsonl"))
    regrow = Regrow(RoundPlan(plan.candidates, sampling, seed=plan.seed))
    trainer = quiet_trainer(
        [RunProgress(), regrow, curves, rows, summary],
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
