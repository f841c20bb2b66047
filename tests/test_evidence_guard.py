"""``python -m evidence guard`` in small: every arm is run once, and the page tells what was measured."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import expect_error, tree

import evidence.guard
from evidence.__main__ import main
from evidence.guard import ARMS, GuardPlan
from evidence.guard_page import fell_at, fired_at, guard_page, guard_rows, would_fire
from evidence.results_file import ResultsFile

TINY = functools.partial(
    GuardPlan,
    lr=0.01,
    per_cell=1,
    candidates=4,
    batch_size=8,
    pairs=20,
    drawn_per_cell=1,
    drawn_candidates=2,
    test_per_cell=1,
    test_candidates=2,
)


def test_every_arm_is_run_and_the_page_tells_what_was_measured(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence.guard, "GuardPlan", TINY)
    command = ["guard", "--checkpoint", str(janus_folder), "--seeds", "1", "--epochs", "2"]
    command += ["--jobs", "1", "--out", "page"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == ["evidence: page/guard.md", "evidence: page/guard.json"]
    found = json.loads(Path("page/guard.json").read_text())
    runs, rows = list(ResultsFile(Path("page/guard.parquet")).results().values()), found["rows"]
    assert sorted(run["arm"] for run in runs) == sorted([*ARMS, "clean"])
    for run in runs:
        assert [row["epoch"] for row in run["guard"]] == [1, 2] and [row["epoch"] for row in run["truth"]] == [0, 1, 2]
        assert run["truth"][0]["generation_change"]["value"] == 0
        assert (fired_at(run) is not None) == would_fire(run, 0.02, 2)
    drawn = {(run["arm"], run["seed"]): run["drawn"] for run in runs}
    assert drawn["always-yes", 10]["accepted"] == drawn["always-yes", 10]["candidates"] == 60
    assert drawn["clean", 10]["accepted"] + drawn["inverted", 10]["accepted"] == 60
    assert 0 < drawn["random", 10]["accepted"] < 60

    for arm in ARMS:
        members = [run for run in runs if run["arm"] == arm]
        (row,) = [row for row in rows if row["arm"] == arm and row["metric"] == "fired"]
        assert row["n"] == len(members) and row["value"] == sum(map(bool, map(fired_at, members))) / len(members)
        assert row.keys() == {"claim", "arm", "metric", "value", "low", "high", "n", "seeds"}
    page = Path("page/guard.md").read_text()
    assert all(f"\n| {arm} | " in page for arm in ARMS) and "nan" not in page

    made = tree(here)
    assert main(command) == 0
    assert tree(here) == made
    capsys.readouterr()
    expect_error(main([*command, "--epochs", "3"]), capsys, "another experiment", "epochs")


def test_the_published_page_is_that_of_the_stored_runs() -> None:
    folder = Path(__file__).parents[1] / "docs" / "evidence"
    found = json.loads((folder / "guard.json").read_text())
    stored = ResultsFile(folder / "guard.parquet").results()
    plan = GuardPlan(seeds=found["settings"]["seeds"])
    runs = [stored[f"{arm}-seed-{seed}"] for arm, seed in plan.runs()]
    assert len(runs) == len(stored)
    assert guard_page(found["settings"], runs) == (folder / "guard.md").read_text()
    assert guard_rows(runs) == found["rows"]


def run_of(arm: str, auroc: list[tuple[float, float]], generation: list[tuple[float, float]]) -> dict[str, Any]:
    """A run with these intervals of change, epoch by epoch."""
    still = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 9}

    def change(low: float, high: float) -> dict[str, float]:
        return {"value": (low + high) / 2, "low": low, "high": high, "n": 9}

    guard = [
        {
            "epoch": epoch,
            "now": {"auroc": 0.8, "brier": 0.1, "yes_rate": 0.5, "accepted": 0.5},
            "change": {"auroc": change(*ends), "brier": still, "yes_rate": still, "accepted": still},
            "true_share": 0.5,
            "fired": epoch == 2 and arm != "clean",
            "harms": ["auroc"],
        }
        for epoch, ends in enumerate(auroc, 1)
    ]
    truth = [
        {"epoch": epoch, "generation": 0.5, "generation_change": change(*ends), "non_unification": 0.5 - epoch / 10}
        for epoch, ends in enumerate([(0.0, 0.0), *generation])
    ]
    return {"arm": arm, "seed": 0, "guard": guard, "truth": truth, "drawn": {"accepted": 4, "truly_right": 1}}


def test_events_are_read_off_the_intervals() -> None:
    worse = [(-0.03, -0.01), (-0.05, -0.02), (-0.02, 0.01)]
    run = run_of("random", worse, [(-0.1, 0.1), (-0.1, 0.0), (-0.2, -0.1)])
    assert fired_at(run) == 2 and fell_at(run) == 3
    assert would_fire(run, 0.0, 2) and not would_fire(run, 0.0, 3) and not would_fire(run, 0.015, 2)
    assert would_fire(run, 0.015, 1) and not would_fire(run, 0.02, 1)
    rows = {(row["arm"], row["metric"]): row for row in guard_rows([run, run_of("clean", worse[2:], [(0.0, 0.1)])])}
    assert rows["random", "epochs from firing to the fall"]["value"] == 1
    assert rows["clean", "fired"]["value"] == 0 and rows["all corrupted", "fired"]["value"] == 1
    assert rows["quality fell", "real quality fell"]["n"] == 1
    # Wilson's interval for one of one
    assert rows["random", "fired"]["low"] == pytest.approx(0.2065, abs=1e-4)
