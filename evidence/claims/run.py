"""Runs one arm with one seed: measure, improve, measure again on the same prompts, and judge the old drawings anew."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from evidence.claims.arm import Arm, Spec, build, spec
from evidence.claims.setting import Setting
from evidence.guard import GuardPlan
from evidence.results_file import Result
from unigap.callbacks import Guard, Regrow
from unigap.console.quiet import quiet_libraries
from unigap.data import PoolData
from unigap.evaluation.calibration import calibrate
from unigap.evaluation.gap import Verdicts, measure, probe_logits, rejudge
from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ShapesPairs
from unigap.judges import OracleJudge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.models.base import UnifiedModel
from unigap.records import Prompt
from unigap.stages import CurriculumStage, RedrawSchedule, SFTStage
from unigap.stages.quiet_trainer import quiet_trainer
from unigap.worlds.shapes.probe_set import shapes_probe_set

EVAL_SEED = 2_000_000
"""Added to the seed of an arm for the drawings it is measured on."""
CALIBRATION_PAIRS = 600
COARSE_VIEW = (8, 2)
"""Validation prompts for each (category, difficulty), and drawings of each, that tell when progress stalls."""
FINE_VIEW = (GuardPlan.drawn_per_cell, GuardPlan.drawn_candidates)
"""The same for what stops a run: with fewer, the guard hardly notices anything (``python -m evidence guard``)."""


@quiet_libraries()
def measure_base(setting: Setting, prompts: str, seed: int) -> Result:
    """What the model draws and understands before any arm, on the prompts and seeds all arms are measured on."""
    began = time.perf_counter()
    seen, renders_E = base(setting, prompts, seed)
    return {
        **_said(seen, renders_E),
        "cells": [(prompt.category, prompt.difficulty) for prompt in seen.prompts],
        "renders_truth": _exam(setting).truth_B.int().tolist(),
        "seconds": round(time.perf_counter() - began, 1),
    }


@quiet_libraries()
def run_arm(setting: Setting, arm: Arm, seed: int, max_steps: int = -1) -> Result:
    """Improves the model and measures it.

    Args:
        setting: What all arms share.
        arm: What this one does.
        seed: Seed of candidates, training order and test drawings.
        max_steps: Optimizer steps after which to stop, whatever the epochs; -1 counts epochs.
    """
    began = time.perf_counter()
    before, _ = base(setting, arm.prompts, seed)
    model = setting.open(**arm.model)
    made = _improve(setting, arm, seed, model, max_steps)
    own = SelfJudge()
    after = measure(model, before.prompts, _draws(setting, seed), own, OracleJudge())
    return {
        "recipe": arm.recipe(),
        **made,
        **_said(after, probe_logits(model, _exam(setting), own)),
        "fixed": _numbers(rejudge(model, before, own)),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _improve(setting: Setting, arm: Arm, seed: int, model: UnifiedModel, max_steps: int) -> Result:
    """Trains the model; how many steps it took, at which threshold, and how each round went."""
    # every other seed is given to its owner
    torch.manual_seed(seed)
    redraw = dict(build(arm.regrow))
    regrow = Regrow(setting.plan(arm.candidates, seed), redraw.pop("allocation", None))
    schedule = RedrawSchedule(**redraw) if redraw else None
    callbacks = [build(callback) for callback in arm.callbacks]
    stops = any(isinstance(callback, Guard | EarlyStopping) for callback in callbacks)
    per_cell, drawn = FINE_VIEW if stops else COARSE_VIEW
    stage_class = functools.partial(CurriculumStage, schedule=schedule) if schedule else SFTStage
    stage = stage_class(
        model,
        build(_objective(arm, model)),
        judge=build(arm.judge),
        external=OracleJudge(),
        lr=arm.lr,
        eval_plan=setting.plan(drawn, EVAL_SEED - 1),
        warmup_steps=10,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = PoolData(
            prompts=_write(setting.train_prompts(arm.prompts), Path(folder) / "prompts.jsonl"),
            pool=f"{folder}/pool",
            batch_size=setting.batch_size,
            eval_prompts="shapes",
            eval_per_cell=per_cell,
            exam_pictures=0,
            seed=seed,
            order=arm.order,
        )
        trainer = quiet_trainer(
            [regrow, *callbacks],
            max_epochs=-1 if max_steps > 0 else arm.epochs,
            max_steps=max_steps,
            limit_val_batches=None if stops or (schedule and schedule.patience) else 0,
        )
        trainer.fit(stage, datamodule=data)
    return {"steps": trainer.global_step, "threshold": stage.objective.threshold, "rounds": regrow.counts}


def _objective(arm: Arm, model: UnifiedModel) -> Spec:
    if not arm.precision:
        return arm.objective
    threshold = calibrate(model, SelfJudge(), ShapesPairs(), CALIBRATION_PAIRS, arm.precision).threshold
    return spec(arm.objective["class_path"], **{**arm.objective["init_args"], "threshold": threshold})


@functools.lru_cache(maxsize=2)
def base(setting: Setting, prompts: str, seed: int) -> tuple[Verdicts, Tensor]:
    """What the model draws and says before any arm, and its log-odds of yes for the exam's claims."""
    model, own = setting.open(), SelfJudge()
    seen = measure(model, setting.test_prompts(prompts), _draws(setting, seed), own, OracleJudge())
    return seen, probe_logits(model, _exam(setting), own)


@functools.lru_cache(maxsize=1)
def _exam(setting: Setting) -> ProbeSet:
    return shapes_probe_set(setting.split, setting.exam, seed=0)


def _draws(setting: Setting, seed: int) -> RoundPlan:
    return setting.plan(setting.test_candidates, EVAL_SEED + seed)


def _said(seen: Verdicts, renders_E: Tensor) -> dict[str, Any]:
    return {"right": seen.truth_S.int().tolist(), "own": _numbers(seen.own_S), "renders": _numbers(renders_E)}


def _numbers(logit_S: Tensor) -> list[float]:
    """Two decimals, rounded down so that no verdict changes sides."""
    return [math.floor(100 * logit) / 100 for logit in logit_S.tolist()]


def _write(prompts: list[Prompt], path: Path) -> str:
    lines = [{name: value for name, value in dataclasses.asdict(p).items() if name != "truth"} for p in prompts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)
