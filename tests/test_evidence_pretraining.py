"""``python -m evidence pretraining`` in small, and the targets that the page compares with."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from small_runs import PRETRAIN, TRAINER, expect_error, words

import evidence.pretraining
from evidence.__main__ import main
from evidence.claims.arm import Arm
from evidence.claims.recipes import JUDGE
from evidence.claims.setting import Setting
from evidence.fit import spec
from evidence.pretraining_page import BASE, IMPROVED, RECALLED, gains, target_rows
from evidence.results_file import ResultsFile
from unigap.__main__ import main as unigap
from unigap.models.families import load_model
from unigap.worlds.shapes.pretraining_curve import CURVE

TINY = functools.partial(Setting, per_cell=1, skip=0, test_per_cell=1, test_candidates=2, exam=10, batch_size=8)
RECORDED = Path(__file__).parents[1] / "docs" / "evidence"
FICKLE = spec("unigap.judges.RandomJudge", yes_rate=0.4, seed=0)


@pytest.fixture
def pretrained(here: Path) -> Path:
    """Return a small checkpoint with its curve."""
    assert unigap(words("fit", "pretrain", {**TRAINER, **PRETRAIN})) == 0
    return here / "runs/pretrain/model"


def test_one_command_compares_self_improvement_with_recall(
    pretrained: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence.pretraining, "demo_setting", TINY)
    arm = Arm("c_sft", {JUDGE: FICKLE, "regrow.plan.candidates": 2, "trainer.max_epochs": 1})
    monkeypatch.setattr(evidence.pretraining, "C_SFT", arm)
    monkeypatch.setattr(evidence.pretraining, "RECALL", Arm("recall", {"data.init_args.trunk_batch": 2}))
    command = ["pretraining", str(pretrained), "--seeds", "1", "--jobs", "1", "--out", "page"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "evidence: page/pretraining.md",
        "evidence: page/pretraining.json",
    ]
    results = ResultsFile(Path("page/pretraining.parquet")).results()
    assert results["recall-seed-0"]["steps"] == results["self-improvement-seed-0"]["steps"] > 0
    assert results["recall-seed-0"]["own"] != results["base-seed-0"]["own"]
    rows = json.loads(Path("page/pretraining.json").read_text())["rows"]
    page = Path("page/pretraining.md").read_text()
    assert len(rows) == 6 and all(f"| {row['target']} | " in page for row in rows)


def test_a_checkpoint_without_its_curve_is_refused(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["pretraining", str(janus_folder), "--out", "page"])
    expect_error(status, capsys, CURVE, "PretrainingCurve")


def run(right: list[int], own: list[float]) -> dict[str, object]:
    return {"right": right, "own": own, "cells": [("color", "easy"), ("count", "hard")]}


def test_targets_are_compared_with_what_was_measured() -> None:
    curve = [{"generation": {"value": value}} for value in (0.1, 0.4, 0.37, 0.5)]
    base = run([1, 0, 1, 0], [2.0, 1.0, 1.0, -1.0])
    better, recalled = run([1, 1, 1, 1], [1.0] * 4), run([1, 1, 1, 0], [1.0] * 4)
    runs = {BASE: [base], IMPROVED: [better], RECALLED: [recalled]}
    assert gains(runs[BASE], runs[IMPROVED])["generation"].value == pytest.approx(0.5)
    rows = {row["target"]: (round(row["value"], 4), row["held"]) for row in target_rows(curve, runs)}
    assert rows == {
        "largest fall of generation accuracy during pretraining": (0.03, False),
        "gain of recall, as a share of the gain of self-improvement": (0.5, False),
        "generation accuracy": (0.5, True),
        "AUROC of the judge on its own images": (0.875, True),
        "precision of yes": (0.6667, False),
        "weak-generation share": (1.0, True),
    }


def test_the_shipped_model_is_the_one_whose_targets_are_recorded() -> None:
    recorded = json.loads((RECORDED / "pretraining.json").read_text())
    assert recorded["setting"]["weights"] == load_model("shapes").weights_digest()
    held = {row["target"]: row["held"] for row in recorded["rows"]}
    missed = {name for name, holds in held.items() if not holds}
    assert len(held) == 6 and missed == {"AUROC of the judge on its own images"}, "the card says which target it misses"
    page = (RECORDED / "pretraining.md").read_text()
    assert all(f"| {name} | " in page for name in held)
