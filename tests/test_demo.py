"""The demonstration in seconds: what it leaves in its folder, and that it never replaces what it did not make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_runs import expect_error, shrink_demo, tree

from unigap.__main__ import main
from unigap.pool import Pool

FIGURES = {
    "generation",
    "non_unification",
    "weak_generation",
    "understanding_renders",
    "judge_tnr",
    "judge_precision",
}
ROUND = {"prompts", "candidates", "accepted", "discarded"}


def read(folder: Path, name: str) -> Any:
    """A JSON file of a run."""
    return json.loads((folder / name).read_text())


def is_reading(reading: dict[str, float | None]) -> bool:
    """A value with its interval and n, or nothing at all where there is nothing to measure."""
    if reading["n"] == 0:
        return reading == {"value": None, "low": None, "high": None, "n": 0}
    value, low, high = reading["value"], reading["low"], reading["high"]
    assert value is not None and low is not None and high is not None
    return reading.keys() == {"value", "low", "high", "n"} and low <= value <= high


def test_summary_says_what_was_done_and_what_came_of_it(small_demo: Path, janus_folder: Path) -> None:
    summary = read(small_demo, "summary.json")
    assert summary["seed"] == 0 and summary["model"] == str(janus_folder) and summary["n_eval_prompts"] == 15
    for when in ("before", "after"):
        assert summary[when].keys() >= FIGURES
        assert all(is_reading(reading) for reading in summary[when].values()), when
        assert summary[when]["generation"]["n"] == 60 and summary[when]["understanding_renders"]["n"] == 10
    assert is_reading(summary["after"]["win_rate"])
    assert summary["delta"].keys() >= FIGURES | {"judge_tpr", "judge_auroc"}
    assert all(is_reading(summary["delta"][name]) for name in ("generation", "non_unification", "judge_accuracy"))
    for name, reading in summary["delta"].items():
        # the judge is asked about the drawings made before
        before, after = (summary[when][name]["value"] for when in ("before", "after"))
        assert reading["value"] == (None if None in (before, after) else pytest.approx(after - before)), name
    redrawn = summary["redrawn"]
    assert sum(reading["n"] for reading in redrawn.values()) == 60
    corrected, spoilt = (
        (redrawn[way]["value"] or 0) * redrawn[way]["n"] for way in ("wrong_to_right", "right_to_wrong")
    )
    assert (corrected - spoilt) / 60 == pytest.approx(summary["delta"]["generation"]["value"])
    assert summary["wall_seconds"].keys() == {"gap_before", "self_improvement", "gap_after"}
    assert all(seconds > 0 for seconds in summary["wall_seconds"].values())
    assert summary["command"].startswith("unigap")
    assert {"unigap", "torch", "lightning", "transformers"} <= summary["versions"].keys()


def test_rounds_of_the_summary_are_those_of_the_pool(small_demo: Path) -> None:
    rounds = read(small_demo, "summary.json")["rounds"]
    pool = Pool.open(small_demo / "pool")
    logits = pool.logits("random")
    left = 30
    for number, counts in enumerate(rounds):
        drawn = [candidate for candidate in pool.candidates() if candidate.round == number]
        accepted = {candidate.id: candidate.prompt.id for candidate in drawn if logits[candidate.id] >= 0}
        assert counts.keys() >= ROUND
        assert counts["prompts"] == len(pool.prompts()[number]) == left
        assert counts["candidates"] == len(drawn) == 2 * left
        assert 0 < counts["accepted"] == len(accepted) < len(drawn)
        left -= len(set(accepted.values()))
        assert counts["discarded"] == left
    assert len(rounds) == len(pool.rounds) == 2


def test_every_accepted_drawing_is_trained_on(small_demo: Path) -> None:
    judgments = Pool.open(small_demo / "pool").judgments("random")
    trained = [json.loads(line)["rows"] for line in (small_demo / "rows.jsonl").read_text().splitlines()]
    for epoch, rows in enumerate(trained):
        known = [j.candidate_id for j in judgments if int(j.candidate_id.rpartition("@")[2].split(".")[0]) <= epoch]
        assert sorted(rows) == sorted(j.candidate_id for j in judgments if j.logit >= 0 and j.candidate_id in known)
    assert len(trained) == 2


def test_report_curves_and_gallery_are_there(small_demo: Path) -> None:
    assert "<svg" in (small_demo / "report.html").read_text()
    assert [row["epoch"] for row in read(small_demo, "curves.json")] == [0, 1, 2]
    gallery = read(small_demo, "gallery.json")
    assert len(gallery) == 15 == len({row["prompt"] for row in gallery})
    for row in gallery:
        for when in ("before", "after"):
            assert 0 <= row[when]["p_yes"] <= 1 and isinstance(row[when]["external"], bool)
            with Image.open(small_demo / row[when]["image"]) as image:
                assert image.size == (32, 32) and image.format == "PNG"


def test_the_command_repeats_itself_and_replaces_only_when_told(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shrink_demo(monkeypatch)
    command = ["demo", "--checkpoint", str(janus_folder), "--seed", "3"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "15 test prompts" in told.out and "report: runs/demo/report.html" in told.out
    control, steps = read(here / "runs/demo", "control.json"), read(here / "runs/demo", "summary.json")["steps"]
    assert control["steps"] == steps > 0 and is_reading(control["generation"])
    assert control["generation"]["n"] == 60
    assert f"Control, {steps} steps on pretraining data instead: Generation accuracy" in told.out
    assert "prompts had no accepted image after the first round" in " ".join(told.out.split())
    assert all(len(line) <= 80 for line in told.out.splitlines())
    assert not [noise for noise in ("Tip", "GPU available", "Loading weights") if noise in told.err]
    first = read(here / "runs/demo", "summary.json")

    before = tree(here)
    expect_error(main(command), capsys, "is not empty", "--overwrite")
    assert tree(here) == before

    mark = here / "runs/demo/demo.json"
    mark.rename(here / "mark")
    expect_error(main([*command, "--overwrite"]), capsys, "is not empty")
    (here / "mark").rename(mark)
    assert tree(here) == before

    assert main([*command, "--overwrite"]) == 0
    assert main(["export", "model", "runs/demo", "--out", "weights"]) == 0, "its folder is a run folder"
    second = read(here / "runs/demo", "summary.json")
    for summary in (first, second):
        del summary["wall_seconds"], summary["command"]
    assert first == second
