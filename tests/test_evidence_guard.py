"""``python -m evidence guard`` in small: arms are run once, and the page tells what was measured."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import expect_error, tree

import evidence.guard_arms
from evidence.__main__ import main
from evidence.guard_arms import CHOOSING_SEED, JUDGES, FewObjectsJudge, GuardArm, GuardPlan, kinds
from evidence.guard_page import fired_at, groups, guard_rows
from evidence.guard_replay import GRID, USUAL, chosen_tolerances, fell_at
from evidence.results_file import ResultsFile
from unigap.callbacks.guard_watches import WATCHES
from unigap.metrics.watches import level
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.scenes import imagine, render

TINY = functools.partial(
    GuardPlan, clean=1, choosing=1, per_cell=1, batch_size=8, pairs=20, drawn_per_cell=1, drawn_candidates=2
)


def test_arms_are_run_once_and_the_page_tells_what_was_measured(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence.guard_arms, "GuardPlan", TINY)
    monkeypatch.setattr(evidence.guard_arms, "JUDGES", {name: JUDGES[name] for name in ("clean", "inverted")})
    short = {"trainer.max_epochs": 2, "trainer.check_val_every_n_epoch": 1, "model.init_args.lr": 0.01}
    grpo = evidence.guard_arms.OBJECTIVES["grpo"] | short
    monkeypatch.setattr(evidence.guard_arms, "OBJECTIVES", {"grpo": grpo})
    command = ["guard", "--checkpoint", str(janus_folder), "--seeds", "1", "--jobs", "1", "--out", "page"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == ["evidence: page/guard.md", "evidence: page/guard.json"]
    found = json.loads(Path("page/guard.json").read_text())
    runs = {name: run for name, run in ResultsFile(Path("page/guard.parquet")).results().items()}
    assert runs.keys() == {"grpo-clean-seed-10", "grpo-inverted-seed-10", f"grpo-clean-seed-{CHOOSING_SEED}"}
    for run in runs.values():
        assert [row["epoch"] for row in run["guard"]] == [1, 2] and [row["epoch"] for row in run["truth"]] == [0, 1, 2]
        assert run["truth"][0]["generation_change"]["value"] == 0 and run["cpu_seconds"] > 0
        fired = next((row["epoch"] for row in run["guard"] if not row["sound"]), None)
        assert fired_at(run, USUAL) == fired, "the replay of the usual tolerances is what the guard did"
    drawn = {name: run["drawn"] for name, run in runs.items()}
    accepted = drawn["grpo-clean-seed-10"]["accepted"] + drawn["grpo-inverted-seed-10"]["accepted"]
    assert accepted == drawn["grpo-clean-seed-10"]["candidates"]

    (row,) = [r for r in found["rows"] if r["arm"] == "grpo inverted" and r["metric"] == "fired"]
    assert row["n"] == 1 and row.keys() == {"claim", "arm", "metric", "value", "low", "high", "n", "seeds"}
    page = Path("page/guard.md").read_text()
    assert "\n| grpo inverted | 1 | " in page and "nan" not in page

    made = tree(here)
    assert main(command) == 0
    assert tree(here) == made
    monkeypatch.setattr(evidence.guard_arms, "GuardPlan", functools.partial(TINY, pairs=24))
    capsys.readouterr()
    expect_error(main(command), capsys, "another experiment", "pairs")


def test_every_arm_names_judges_that_exist_and_counts_are_as_said() -> None:
    for make in JUDGES.values():
        spec = make(7)
        module, name = spec["class_path"].rsplit(".", 1)
        inspect.signature(getattr(importlib.import_module(module), name)).bind(**spec["init_args"])
    arms = GuardPlan(seeds=2).arms()
    assert len(arms) == len({arm.name for arm in arms})
    assert sum(arm.judge != "clean" for arm in arms) == 2 * 16
    clean = [arm for arm in arms if arm.judge == "clean"]
    assert sum(arm.seed < CHOOSING_SEED for arm in clean) == 18 and len(clean) == 30
    assert {("dpo", "always-yes"), ("grpo", "always-yes")}.isdisjoint(kinds())
    assert GuardPlan().options(GuardArm("grpo", "clean", 3))["model.init_args.schedule"]["redraw"] == "all"
    with pytest.raises(ValueError, match="seeds must be >= 1"):
        GuardPlan(seeds=0)


def test_few_objects_are_rewarded_whatever_the_prompt() -> None:
    few, many = (render(imagine(parse(text), random.Random(0))) for text in ("a red circle", "three blue squares"))
    model: Any = None
    assert FewObjectsJudge().logits(model, [], torch.stack([few, many])).tolist() == [1, -3]


def run_of(judge: str, seed: int, falls: list[float], generation: list[tuple[float, float]]) -> dict[str, Any]:
    """A run whose accepted share falls by this much from 0.6 at each validation, with a standard error of 0.01."""
    guard = []
    for number, fall in enumerate(falls, 1):
        moments = {"now": 0.6 - fall, "before": 0.6, "now_variance": 5e-5, "before_variance": 5e-5, "covariance": 0.0}
        guard.append({"epoch": number, "level": level(0.05, number, 1), "sound": True,
                      "figures": {"accepted": {"from_best": {**moments, "n": 200}}}})  # fmt: skip
    truth = [
        {"epoch": epoch, "generation": 0.5, "generation_change": {"low": low, "high": high}}
        for epoch, (low, high) in enumerate([(0.0, 0.0), *generation])
    ]
    return {"objective": "sft", "judge": judge, "seed": seed, "guard": guard, "truth": truth, "cpu_seconds": 1.0}


def test_events_follow_from_the_tolerances() -> None:
    run = run_of("random", 10, [0.03, 0.12, 0.2], [(-0.1, 0.1), (-0.1, 0.0), (-0.2, -0.1)])
    assert fell_at(run) == 3
    assert [fired_at(run, {"accepted": tolerance}) for tolerance in (0.0, 0.05, 0.1, 0.2)] == [1, 2, 3, None]
    assert fired_at(run, {"spread": 0.0}) is None


def test_tolerances_are_chosen_on_other_seeds_than_those_reported() -> None:
    still = [(0.0, 0.1)]
    noisy, calm = run_of("clean", CHOOSING_SEED, [0.06], still), run_of("clean", 10, [0.0], still)
    bad = run_of("random", 10, [0.3], [(-0.4, -0.2)])
    chosen = chosen_tolerances([noisy, calm, bad])
    # silent from 0.05 on, since 0.06 - 0.05 is one standard error; the next step of the grid is taken
    assert chosen["accepted"] == 0.07 and 0.05 in GRID and chosen["spread"] == GRID[1]
    assert chosen_tolerances([calm, bad])["accepted"] == GRID[1], "reported runs choose nothing"
    assert chosen.keys() == WATCHES.keys()
    rows = {(row["arm"], row["metric"]): row for row in guard_rows([noisy, calm, bad])}
    assert rows["all clean", "fired"]["value"] == 0 and rows["all clean", "fired"]["n"] == 1
    assert rows["all corrupted", "fired"]["value"] == 1 and rows["quality fell", "real quality fell"]["n"] == 1
    assert rows["quality fell", "epochs from firing to the fall"]["value"] == 0
    assert groups([calm, bad]).keys() == {"sft clean", "sft random", "all clean", "all corrupted", "quality fell"}
    # Wilson's interval for one of one
    assert rows["sft random", "fired"]["low"] == pytest.approx(0.2065, abs=1e-4)
