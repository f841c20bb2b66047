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
from evidence.fit import Overrides, fit, run_fit
from evidence.results_file import Result
from unigap.console.quiet import quiet_libraries
from unigap.evaluation.gap import Verdicts, measure, probe_logits, rejudge
from unigap.evaluation.probe_set import ProbeSet
from unigap.judges import OracleJudge, SelfJudge
from unigap.models.base import UnifiedModel
from unigap.models.families import load_model
from unigap.worlds.shapes.probe_set import shapes_probe_set

RECALL_CONFIG = "recall"
"""The config that goes on with pretraining."""


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
    with tempfile.TemporaryDirectory() as folder:
        train = _recalled if arm.config == RECALL_CONFIG else _improved
        model, trained = train(setting, arm, seed, max_steps, Path(folder))
    own = SelfJudge()
    after = measure(model, before.prompts, setting.test_plan(seed), own, OracleJudge())
    return {
        "recipe": arm.recipe(),
        **trained,
        **figures(after, probe_logits(model, _probe_set(setting), own)),
        "fixed": _numbers(rejudge(model, before, own)),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _improved(
    setting: Setting, arm: Arm, seed: int, max_steps: int, folder: Path
) -> tuple[UnifiedModel, dict[str, Any]]:
    """Return the model of a run of self-improvement, and its steps and rounds."""
    limit: Overrides = {"trainer.max_epochs": -1, "trainer.max_steps": max_steps} if max_steps > 0 else {}
    options = setting.options(arm.prompts, seed, folder) | arm.overrides
    trained = fit(arm.config, folder / "run", {**options, **limit})
    return trained.model(), {"steps": trained.steps, "rounds": trained.rounds}


def _recalled(
    setting: Setting, arm: Arm, seed: int, max_steps: int, folder: Path
) -> tuple[UnifiedModel, dict[str, Any]]:
    """Return a model that was pretrained on, on new batches, and its steps."""
    options = {
        "seed_everything": seed,
        "model.init_args.model": setting.model_spec(),
        "model.init_args.out": str(folder / "model"),
        "data.init_args.trunk_steps": max_steps,
        "data.init_args.seed": 1 + seed,  # pretraining has seed 0
    }
    run_fit(arm.config, folder / "run", options | arm.overrides)
    return load_model(str(folder / "model")), {"steps": max_steps, "rounds": []}


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
