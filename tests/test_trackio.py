"""The trackio logger: what it is told by a run, and the one line without trackio."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from small_runs import expect_error, improve

ONE = {
    "trainer.logger": "unigap.report.run_folder.trackio_log.TrackioLogger",
    "trainer.max_epochs": 1,
    "trainer.limit_val_batches": 0,
}


class Run:
    """A run of the stand-in: the steps and figures it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int | None, dict[str, float]]] = []
        self.is_over = False

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.told.append((step, metrics))

    def finish(self) -> None:
        self.is_over = True


def test_a_run_is_logged(janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, begun = Run(), []
    trackio = ModuleType("trackio")
    trackio.__spec__ = importlib.machinery.ModuleSpec("trackio", None)
    trackio.init = lambda **options: begun.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    assert improve(janus_folder, "sft", ONE) == 0
    assert begun == [{"project": "unigap", "name": "sft", "resume": "allow", "embed": False}] and run.is_over
    losses = [(step, figures["train/loss"]) for step, figures in run.told if "train/loss" in figures]
    assert [step for step, _ in losses] == [0, 1] and all(isinstance(loss, float) for _, loss in losses)


def test_without_trackio_one_line_says_how_to_install_it(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "trackio" else real(name, *a))
    expect_error(improve(janus_folder, "sft", ONE), capsys, "pip install trackio")
