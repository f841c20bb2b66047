"""The checkpoint pretrained with noisy captions: what its card promises, and what was recorded about its gap."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evidence.pretraining import demo_setting
from evidence.pretraining_page import FALL
from unigap.evaluation.gap import gap_scores, measure
from unigap.judges import OracleJudge, SelfJudge
from unigap.metrics import scores
from unigap.models.families import load_model
from unigap.models.files.location import resolve
from unigap.worlds.shapes.pretraining_curve import CURVE, curve_table, largest_fall

FOLDER = Path(resolve("shapes")).with_name("janus_noisy")
RECORDED = Path(__file__).parents[2] / "docs/evidence/pretraining.json"
MOVED = 0.04
"""Tolerance for another CPU and for the smaller number of images."""


def test_generation_never_falls_during_pretraining_and_the_card_shows_the_curve() -> None:
    rows = json.loads((FOLDER / CURVE).read_text())
    assert len(rows) >= 4
    assert FALL.least <= largest_fall([row["generation"]["value"] for row in rows]) <= FALL.most
    assert curve_table(rows) in (FOLDER / "README.md").read_text()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000


def test_the_recorded_targets_are_of_these_weights() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert recorded["setting"]["weights"] == load_model(str(FOLDER)).weights_digest()
    assert {row["target"]: row["held"] for row in recorded["rows"]} == HELD


def test_the_gap_is_as_recorded() -> None:
    setting = demo_setting(str(FOLDER))
    model = load_model(str(FOLDER))
    drawn = measure(model, setting.test_prompts("standard"), setting.test_plan(0), SelfJudge(), OracleJudge())
    found = {name: estimate.value for name, estimate in gap_scores(drawn).items()}
    recorded = {row["target"]: row["value"] for row in json.loads(RECORDED.read_text())["rows"]}
    assert found["generation"] == pytest.approx(recorded["generation accuracy"], abs=MOVED)
    assert found["judge_precision"] == pytest.approx(recorded["precision of yes"], abs=MOVED)
    assert found["weak_generation"] == pytest.approx(recorded["weak-generation share"], abs=MOVED)
    auroc = scores.auroc(drawn.own_S, drawn.truth_S, drawn.prompt_S).value
    assert auroc == pytest.approx(recorded["AUROC of the judge on its own images"], abs=MOVED)
