"""The summary a run of ``unigap fit`` leaves for its report: what it holds, and that training does not notice it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import FICKLE, SUMMARY, expect_error, improve, same, state, tree

from unigap.__main__ import main
from unigap.report.run_folder.contents import RunFolder, read_run

WRITTEN = {**FICKLE, "summary.folder": "runs/c_sft", **SUMMARY, "data.seed": 5}
LAST = Path("runs/c_sft/checkpoints/last.ckpt")


def without_clock(folder: Path) -> dict[str, Any]:
    """The summary of a run without what no two runs share."""
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    del content["wall_seconds"], content["command"]
    return content


def test_a_config_run_can_be_reported_and_its_training_is_the_same(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # so large a step that the judge of an untrained model changes its mind
    flags = {**WRITTEN, "model.init_args.lr": 0.01, "model.init_args.warmup_steps": 0, "summary.plan.candidates": 4}
    assert improve(janus_folder, "c_sft", flags) == 0
    printed = capsys.readouterr()
    assert "The gap on 15 test prompts" in printed.out
    assert printed.err.endswith("next: unigap report runs/c_sft\n")
    run = read_run("runs/c_sft")
    summary = run.summary
    assert (summary.seed, summary.model, summary.n_eval_prompts) == (5, str(janus_folder), 15)
    assert summary.before["generation"].n == 60 and summary.before["understanding_renders"].n == 10
    assert [one.round for one in summary.rounds] == [0, 1] and summary.rounds[0].candidates == 30
    assert summary.wall_seconds.keys() == {"gap_before", "self_improvement", "gap_after"}
    assert summary.recipe["model.lr"] == 0.01 and summary.recipe["model.schedule.every_n_epochs"] == 1
    assert not any(name.startswith("summary") for name in summary.recipe), "measuring is no part of the recipe"
    assert len(run.exhibits) == 5
    check_rejudged(run)
    assert main(["report", "runs/c_sft"]) == 0
    assert "report: runs/c_sft/report.html" in capsys.readouterr().out
    measured = state(LAST)

    shutil.rmtree("runs")
    assert improve(janus_folder, "c_sft", {**flags, "summary.folder": ""}) == 0
    assert same(state(LAST), measured)
    assert not (here / "runs/c_sft/summary.json").exists()


def check_rejudged(run: RunFolder) -> None:
    """The drawings shown are those whose verdict turned round, as many as the figures say."""
    assert run.rejudged
    for one in run.rejudged:
        assert (one.p_before >= 0.5) != (one.p_after >= 0.5)
        assert len(run.png(one.image)) > 0
    kinds = {"positives_rejected": True, "negatives_accepted": False}
    for name, accepted in kinds.items():
        for truth, right in (("true", accepted), ("false", not accepted)):
            estimate = run.summary.rejudged[f"{truth}_{name}"]
            count = round(estimate.value * estimate.n) if estimate.measured else 0
            assert sum(one.kind == (accepted, right) for one in run.rejudged) == min(count, 6), f"{truth}_{name}"


def test_a_resumed_run_remembers_what_it_began_with(
    janus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("whole", "continued"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert improve(janus_folder, "c_sft", {**WRITTEN, "trainer.max_epochs": 3}) == 0

    monkeypatch.chdir(tmp_path / "continued")
    assert improve(janus_folder, "c_sft", WRITTEN) == 0
    capsys.readouterr()
    other = {**WRITTEN, "trainer.max_epochs": 3, "resume": "must"}
    expect_error(improve(janus_folder, "c_sft", {**other, "summary.per_cell": 2}), capsys, "--summary.per_cell was 1")
    assert improve(janus_folder, "c_sft", other) == 0
    assert without_clock(Path("runs/c_sft")) == without_clock(tmp_path / "whole/runs/c_sft")
    ours, theirs = (tree(folder / "runs/c_sft/gallery") for folder in (tmp_path / "continued", tmp_path / "whole"))
    assert ours == theirs


def test_a_run_that_began_unmeasured_is_not_measured_half_way(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "c_sft", {**WRITTEN, "summary.folder": "", "trainer.max_epochs": 1}) == 0
    capsys.readouterr()
    expect_error(improve(janus_folder, "c_sft", {**WRITTEN, "resume": "must"}), capsys, "began unmeasured")


def test_prompts_that_are_trained_on_measure_nothing(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = improve(janus_folder, "c_sft", {**WRITTEN, "summary.split": "improve"})
    expect_error(status, capsys, "evaluation prompts are also trained on")
