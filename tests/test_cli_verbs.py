"""Every verb but ``fit`` and ``demo``, by the user's door: what it prints, what it writes, what it leaves alone."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_pools import flip
from small_runs import CHECKPOINT, FICKLE, POOL, TRAINER, epochs, expect_error, improve, state, tree, words

from unigap import __version__
from unigap.__main__ import VERBS, main
from unigap.pool import Pool

GROUPS = {"all", "color", "shape", "size", "count", "spatial", "easy", "medium", "hard"}
DRAWN = {"generation", "non_unification", "weak_generation", "judge_precision"}


def check_figures(path: Path, n: int) -> dict[str, dict[str, dict[str, float]]]:
    """The figures in a JSON file: by group, with ordered intervals, over ``n`` drawings."""
    figures: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text())
    assert DRAWN | {"understanding_renders"} <= figures.keys()
    assert figures["generation"].keys() == GROUPS and figures["generation"]["all"]["n"] == n
    for found in figures.values():
        for reading in found.values():
            assert reading.keys() == {"value", "low", "high", "n"}
            assert reading["value"] is None or 0 <= reading["low"] <= reading["value"] <= reading["high"] <= 1
    return figures


def test_help_lists_every_verb_at_once_and_imports_no_torch() -> None:
    code = "import sys; from unigap.__main__ import main; status = main(['--help'])\n"
    code += "sys.exit(status or 'torch' in sys.modules or 'lightning' in sys.modules)"
    seconds = []
    for _ in range(3):
        # processor time: what else the machine does is not the command's fault
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
        assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert min(seconds) < 0.5


def test_version_and_module(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "unigap", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"unigap {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code in (0, None)
    printed = capsys.readouterr().out
    assert printed.startswith("usage: unigap") and verb in printed


def test_validate_prints_the_gap_and_writes_it(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"gap_out": here / "gap.json", "model.init_args.eval_plan.candidates": 2}
    assert improve(janus_folder, "sft", flags, verb="validate") == 0
    printed = capsys.readouterr().out
    assert "The gap" in printed and all(group in printed for group in GROUPS)
    check_figures(here / "gap.json", n=30)
    assert not list(here.rglob("*.parquet")), "measuring needs no pool"


def test_validate_measures_the_weights_of_a_checkpoint(janus_folder: Path, here: Path) -> None:
    flags = {"model.init_args.lr": 0.01, "model.init_args.warmup_steps": 0}
    assert improve(janus_folder, "random_judge", flags) == 0
    last = here / "runs/random_judge/checkpoints/last.ckpt"
    ways: dict[str, dict[str, object]] = {
        "untrained": {},
        "ckpt_path": {"ckpt_path": last},
        "init_from": {"model.init_args.init_from": last},
    }
    figures = {}
    for name, flags in ways.items():
        out = here / f"{name}.json"
        assert improve(janus_folder, "random_judge", {**flags, "gap_out": out}, verb="validate") == 0
        figures[name] = check_figures(out, n=60)
    assert figures["ckpt_path"] == figures["init_from"] != figures["untrained"]


def test_predict_writes_a_pool_that_fit_trains_on(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = here / "pool"
    flags: dict[str, object] = {**FICKLE, "data.pool": pool}
    plan = {"model.init_args.predict_plan.candidates": 3, "model.init_args.predict_plan.seed": 7}
    assert improve(janus_folder, "sft", {**flags, **plan}, verb="predict") == 0
    drawn = Pool.open(pool)
    assert drawn.verify() == [] and drawn.rounds == (0,)
    candidates = drawn.candidates()
    assert len(candidates) == 15 * 3 and drawn.recipe(0)["seed"] == 7
    assert {judgment.judge for judgment in drawn.judgments()} == {"random", "oracle"}

    written = tree(pool)
    capsys.readouterr()
    expect_error(improve(janus_folder, "sft", {**flags, **plan}, verb="predict"), capsys, "holds 1 round(s) already")
    assert tree(pool) == written

    # every judgment is the same coin again: what fit would draw itself, two a prompt with another seed, differs
    assert improve(janus_folder, "sft", {**flags, "trainer.limit_train_batches": "null", "data.batch_size": 1}) == 0
    assert tree(pool) == written
    accepted = sorted(j.candidate_id for j in drawn.judgments("random") if j.logit >= 0)
    assert [sorted(rows) for rows in epochs(here / "runs/sft")] == [accepted, accepted]
    assert any(name.endswith("@0.2") for name in accepted), "the third candidate of a prompt is predict's"


def test_gap_prints_and_writes_the_figures_of_a_checkpoint(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(janus_folder), "--per_cell", "1", "--candidates", "2"]
    for name in ("a.json", "b.json"):
        assert main(["gap", *options, "--out", name]) == 0
        assert "The gap" in capsys.readouterr().out
    assert check_figures(here / "a.json", n=30) == check_figures(here / "b.json", n=30)


def test_gap_takes_prompts_from_a_file(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("a red circle\n\ntwo green squares\n")
    gap = ["gap", "--checkpoint", str(janus_folder), "--prompts", "mine.txt", "--out", "gap.json"]
    assert main([*gap, "--external", "unigap.judges.OracleJudge"]) == 0
    figures = json.loads(Path("gap.json").read_text())
    assert figures["generation"]["all"]["n"] == 8
    assert "understanding_renders" not in figures


def test_report_of_a_run(small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(small_demo, "run")
    assert main(["report", "run"]) == 0
    assert main(["report", "run", "--out", "elsewhere.html"]) == 0
    page = Path("run/report.html").read_text()
    assert page.startswith("<!doctype html>") and Path("elsewhere.html").read_text() == page
    assert capsys.readouterr().out.splitlines() == ["report: run/report.html", "report: elsewhere.html"]


def test_pool_verify(small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(small_demo / "pool", "pool")
    assert main(["pool", "verify", "pool"]) == 0
    assert capsys.readouterr().out == "pool: sound\n"
    table = here / "pool/round-00000/candidates.parquet"
    flip(table, 1000, 4)
    before = tree(here)
    expect_error(main(["pool", "verify", "pool"]), capsys, "candidates.parquet")
    assert tree(here) == before


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="cfg must be >= 1"):
        main(["gap", "--cfg", "0.5", "--debug"])
    expect_error(main(["gap", "--cfg", "0.5"]), capsys, "cfg must be >= 1")


def test_the_config_that_is_saved_repeats_the_run(janus_folder: Path, here: Path) -> None:
    flags = {
        **TRAINER,
        **POOL,
        CHECKPOINT: janus_folder,
        **FICKLE,
    }
    assert main(words("fit", "sft", flags)) == 0
    first = state(here / "runs/sft/checkpoints/last.ckpt")
    saved = here / "runs/sft/config.yaml"
    assert main(["fit", "--config", str(saved), "--run", "runs/again"]) == 0
    again = state(here / "runs/again/checkpoints/last.ckpt")
    assert all(tensor.equal(first[name]) for name, tensor in again.items())
    names = [
        {file.relative_to(run) for file in run.rglob("*") if file.is_file()}
        for run in (saved.parent, here / "runs/again")
    ]
    assert names[0] == names[1], "everything moves with the run folder"
