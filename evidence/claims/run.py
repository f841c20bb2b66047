"""Run one arm with one seed: measure the model, train it, measure it again on the same prompts and images."""

from __future__ import annotations

import functools
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from evidence.claims.arm import Arm
from evidence.claims.setting import Setting
from evidence.fit import Overrides, fit
from evidence.results_file import Result
from unigap.console.quiet import quiet_libraries
from unigap.evaluation.calibration import calibrate
from unigap.evaluation.gap import Verdicts, measure, probe_logits, rejudge
from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ShapesPairs
from unigap.judges import OracleJudge, SelfJudge
from unigap.models.base import UnifiedModel
from unigap.worlds.shapes.probe_set import shapes_probe_set

CALIBRATION_PAIRS = 600


@quiet_libraries()
def measure_base(setting: Setting, prompts: str, seed: int) -> Result:
    """Measure the model before any arm, on the prompts and seeds that all arms are measured on."""
    began = time.perf_counter()
    verdicts, renders_E = base(setting, prompts, seed)
    return {
        **figures(verdicts, renders_E),
        "cells": [(prompt.category, prompt.difficulty) for prompt in verdicts.prompts],
        "renders_truth": _probe_set(setting).truth_B.int().tolist(),
        "seconds": round(time.perf_counter() - began, 1),
    }


@quiet_libraries()
def run_arm(setting: Setting, arm: Arm, seed: int, max_steps: int = -1) -> Result:
    """Train by ``unigap fit`` as the arm says, and measure the trained model.

    Args:
        setting: The setting that all arms share.
        arm: The arm.
        seed: Seed of candidates, training order and test images.
        max_steps: Optimizer steps after which training stops, whatever the epochs; -1 counts epochs.
    """
    began = time.perf_counter()
    before, _ = base(setting, arm.prompts, seed)
    limit: Overrides = {"trainer.max_epochs": -1, "trainer.max_steps": max_steps} if max_steps > 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        options = setting.options(arm.prompts, seed, Path(folder)) | arm.overrides
        trained = fit(arm.config, Path(folder) / "run", {**options, **_calibrated(setting, arm), **limit})
        model, rounds = trained.model(), trained.rounds
    own = SelfJudge()
    after = measure(model, before.prompts, setting.test_plan(seed), own, OracleJudge())
    return {
        "recipe": arm.recipe(),
        "steps": trained.steps,
        "threshold": trained.threshold,
        "rounds": rounds,
        **figures(after, probe_logits(model, _probe_set(setting), own)),
        "fixed": _numbers(rejudge(model, before, own)),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _calibrated(setting: Setting, arm: Arm) -> Overrides:
    """Return the threshold at which the judge of the untrained model is as precise as the arm asks."""
    if not arm.precision:
        return {}
    known = ShapesPairs(seed=1)
    found = calibrate(setting.open(), SelfJudge(), known, CALIBRATION_PAIRS, arm.precision)
    return {"model.init_args.objective.init_args.threshold": found.threshold}


@functools.lru_cache(maxsize=2)
def base(setting: Setting, prompts: str, seed: int) -> tuple[Verdicts, Tensor]:
    """Return verdicts on images of the model before any arm, and its log-odds of yes on the rendered images, (E,)."""
    return measure_model(setting, setting.open(), prompts, seed)


def measure_model(setting: Setting, model: UnifiedModel, prompts: str, seed: int) -> tuple[Verdicts, Tensor]:
    """Return verdicts on images of a model, and its log-odds of yes on the rendered images, (E,)."""
    own = SelfJudge()
    verdicts = measure(model, setting.test_prompts(prompts), setting.test_plan(seed), own, OracleJudge())
    return verdicts, probe_logits(model, _probe_set(setting), own)


@functools.lru_cache(maxsize=1)
def _probe_set(setting: Setting) -> ProbeSet:
    return shapes_probe_set(setting.split, setting.exam, seed=0)


def figures(verdicts: Verdicts, renders_E: Tensor) -> dict[str, Any]:
    """Return the verdicts of both judges and the log-odds of yes on the rendered images, as plain JSON."""
    return {
        "right": verdicts.truth_S.int().tolist(),
        "own": _numbers(verdicts.own_S),
        "renders": _numbers(renders_E),
    }


def _numbers(logit_S: Tensor) -> list[float]:
    """Two decimals, rounded down so that no verdict changes sides."""
    return [math.floor(100 * logit) / 100 for logit in logit_S.tolist()]
