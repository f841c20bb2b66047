"""The whole loop on the embedded world in a few minutes: gap before, self-improvement with replay, gap after."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from PIL import Image
from tqdm import tqdm

from unigap.callbacks import CurveLog, Regrow, RowLog
from unigap.data import PoolData
from unigap.gap import Verdicts, compare, exam_scores, gap_by, gap_scores, judge_scores, measure, rejudge, sit_exam
from unigap.gap_table import print_comparison
from unigap.intervals import Estimate
from unigap.judges import Judge, OracleJudge, SelfJudge
from unigap.manifest import write_durable
from unigap.models.janus import Janus
from unigap.objectives import SFT, Objective
from unigap.prompts import load_prompts
from unigap.quiet import quiet_libraries
from unigap.report import write_report
from unigap.rounds import RoundPlan
from unigap.shapes.exam import shapes_exam
from unigap.stages import CurriculumStage

LoggerName = Literal["csv", "wandb"]
GALLERY = 24
PACKAGES = ("unigap", "torch", "lightning", "transformers", "torchmetrics")


@dataclasses.dataclass(frozen=True)
class DemoPlan:
    """What a demonstration run does.

    Attributes:
        checkpoint: The model, ``shapes`` or a folder.
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
        ValueError: When it holds something; an earlier run is only replaced where ``overwrite`` says so.
    """
    folder = Path(out)
    if folder.is_file():
        raise ValueError(f"--out {out!r} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "pool").is_dir() or not overwrite:
            raise ValueError(f"--out {out!r} is not empty; choose another folder, or --overwrite an earlier demo there")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@quiet_libraries()
def run_demo(plan: DemoPlan, folder: Path, logger: LoggerName, judge: Judge, objective: Objective) -> dict[str, Any]:
    """Measures, improves, measures again; writes summary, curves and gallery, and returns the summary."""
    seed_everything(plan.seed, verbose=False)
    clock = Clock()
    model = Janus(plan.checkpoint)
    test = load_prompts("shapes", "test", plan.eval_per_cell)
    exam = shapes_exam("test", plan.exam, plan.seed) if plan.exam else None
    eval_plan = RoundPlan(plan.eval_candidates, seed=1_000_000 + plan.seed)
    own, oracle = SelfJudge(), OracleJudge()

    def look(title: str) -> tuple[Verdicts, Any]:
        with tqdm(total=len(test) * plan.eval_candidates, unit="image", desc=title) as bar:
            return measure(model, test, eval_plan, own, oracle, bar.update), exam and sit_exam(model, exam, own)

    with clock.phase("gap_before"):
        before, exam_before = look("gap before")
    regrow, trainer, stage, data = _trainer(plan, folder, logger, judge, objective, model)
    with clock.phase("self_improvement"):
        trainer.fit(stage, datamodule=data)
    with clock.phase("gap_after"):
        after, exam_after = look("gap after")
        again_S = rejudge(model, before, own)
        change = compare(before, after, again_S)

    def figures(verdicts: Verdicts, judged_S: Any, examined: Any) -> dict[str, Any]:
        found = gap_scores(verdicts) | judge_scores(judged_S, before.right_S, before.prompt_S)
        found |= exam_scores(exam, examined) if exam else {}
        return {name: estimate.to_dict() for name, estimate in found.items()}

    win = change.win
    summary = {
        "seed": plan.seed,
        "model": plan.checkpoint,
        "n_eval_prompts": len(test),
        "before": figures(before, before.own_S, exam_before),
        "after": figures(after, again_S, exam_after)
        | {"win_rate": win.win_rate.to_dict(), "matched_win_rate": win.matched_win_rate.to_dict()}
        | {"delta_auroc": win.delta_auroc.to_dict()},
        "delta": {name: estimate.to_dict() for name, estimate in change.delta.items()},
        "by_category": _by(before, after, "category"),
        "by_difficulty": _by(before, after, "difficulty"),
        "rounds": regrow.counts,
        "wall_seconds": clock.seconds,
        "command": " ".join(["unigap", *sys.argv[1:]]),
        "versions": {name: version(name) for name in PACKAGES},
        "recipe": dataclasses.asdict(plan) | {"judge": judge.name, "objective": type(objective).__name__},
    }
    write_durable(folder / "summary.json", json.dumps(summary, indent=1).encode())
    write_gallery(folder, before, after)
    return summary


def _trainer(
    plan: DemoPlan,
    folder: Path,
    logger: LoggerName,
    judge: Judge,
    objective: Objective,
    model: Janus,
) -> tuple[Regrow, Trainer, CurriculumStage, PoolData]:
    stage = CurriculumStage(
        model, objective, judge=judge, lr=plan.lr, eval_plan=RoundPlan(2, seed=500_000), warmup_steps=10
    )
    data = PoolData(
        pool=str(folder / "pool"),
        batch_size=plan.batch_size,
        per_cell=plan.per_cell,
        eval_per_cell=8,
        exam_pictures=0,
        seed=plan.seed,
    )
    curves = CurveLog(str(folder))
    regrow = Regrow(RoundPlan(plan.candidates, seed=plan.seed), every_n_epochs=1)
    log: Logger = CSVLogger(folder, name="", version="csv")
    if logger == "wandb":
        log = WandbLogger(project="unigap", save_dir=folder, offline=True, group="demo")
    trainer = Trainer(
        max_epochs=plan.epochs,
        accelerator="auto",
        devices=1,
        logger=log,
        callbacks=[regrow, curves, RowLog(str(folder / "rows.jsonl"))],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    trainer.validate(stage, datamodule=data, verbose=False)
    curves.add(0, stage, None)
    return regrow, trainer, stage, data


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the body."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def _by(before: Verdicts, after: Verdicts, attribute: str) -> dict[str, Any]:
    def kept(found: dict[str, Estimate]) -> dict[str, Any]:
        return {name: found[name].to_dict() for name in ("generation", "non_unification")}

    old, new = gap_by(before, attribute), gap_by(after, attribute)
    return {name: {"before": kept(old[name]), "after": kept(new[name])} for name in old}


def write_gallery(folder: Path, before: Verdicts, after: Verdicts) -> None:
    """Writes the first drawing of evenly spread prompts, before and after, with both verdicts."""
    (folder / "gallery").mkdir(exist_ok=True)
    per_prompt = len(before.own_S) // len(before.prompts)
    count = min(GALLERY, len(before.prompts))
    rows = []
    for number in range(count):
        i = number * len(before.prompts) // count * per_prompt
        candidate = before.drawings.candidates[i]
        row: dict[str, Any] = {
            "prompt": candidate.prompt.text,
            "category": candidate.prompt.category,
            "difficulty": candidate.prompt.difficulty,
            "seed": candidate.seed,
        }
        for name, verdicts in (("before", before), ("after", after)):
            path = f"gallery/{number:02d}-{name}.png"
            pixels = ((verdicts.drawings.pixels_BCHW[i] + 1) * 127.5).round().clamp(0, 255).byte()
            Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(folder / path)
            row[name] = {
                "image": path,
                "p_yes": float(verdicts.own_S[i].sigmoid()),
                "external": bool(verdicts.right_S[i]),
            }
        rows.append(row)
    write_durable(folder / "gallery.json", json.dumps(rows, indent=1).encode())
