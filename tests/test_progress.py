"""What a command prints on its way and at its end: progress, durations, what was made, and the next command."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import ModuleType

import pytest
from kill_points import Killed, armed, at_call, kill
from small_runs import CHECKPOINT, POOL, SUMMARY, TRAINER, expect_error, improve, words
from test_two_processes import DDP, environment

from unigap.__main__ import main
from unigap.console import closing, task_lines, tasks
from unigap.loop import sampling
from unigap.pool import Pool
from unigap.stages import SFTStage

SHOWN = {"trainer.enable_progress_bar": "true"}
GAP = ["--per_cell", "1", "--candidates", "2"]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of sampling and judging takes a while, and lines come often."""
    report = tasks.report

    def slowly(done: int, of: int) -> None:
        report(done, of)
        time.sleep(0.005)

    monkeypatch.setattr(tasks, "report", slowly)
    monkeypatch.setattr(tasks, "EVERY", 0.02)
    monkeypatch.setattr(tasks, "REFRESH", 0.02)


def named(lines: list[str]) -> set[str]:
    """The kinds of work in the line of durations."""
    (line,) = [line for line in lines if line.startswith("time: ")]
    return set(re.findall(r"[(,] ?([a-z]+) [\d.]", line))


def next_command(lines: list[str]) -> list[str]:
    """The words after ``unigap`` of the last line."""
    assert lines[-1].startswith("next: unigap "), lines
    return shlex.split(lines[-1].removeprefix("next: unigap "))


@pytest.mark.parametrize("module", [closing, task_lines])
def test_the_examples_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.usefixtures("slow")
def test_a_log_gets_lines_with_images_rate_and_time_left(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gap", "--checkpoint", str(janus_folder), *GAP, "--out", "gap.json"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    form = r"gap on cpu in float32: (\d+) sampled, (\d+) judged of 30 images, [\d.e+]+ images/s, .* left"
    found = [match for line in lines if (match := re.fullmatch(form, line))]
    # the 30 images are one batch: lines come within it
    assert len({match[1] for match in found}) > 3 and {"0", "30"} < {match[1] for match in found} | {"0"}
    assert [int(match[1]) for match in found] == sorted(int(match[1]) for match in found)
    assert "\r" not in err and "sampled" not in out
    assert {"starting", "loading", "sampling", "judging", "measuring", "other"} <= named(lines)
    assert out.splitlines()[-1] == "figures: gap.json"


def test_lines_come_every_thirty_seconds_also_while_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tasks.EVERY == 30
    monkeypatch.setattr(tasks, "EVERY", 0.1)
    with tasks.shown(), tasks.task("loading", "loading a model"):
        time.sleep(0.35)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"loading a model: 0\.\d+ s so far", line) for line in lines), lines


@pytest.mark.usefixtures("slow")
def test_a_terminal_gets_a_bar(janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 100))
    with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        assert terminal.isatty() and main(["gap", "--checkpoint", str(janus_folder), *GAP]) == 0
    shown = b""
    while b"next: " not in shown or not shown.endswith(b"\n"):
        shown += os.read(reader, 1 << 16)
    os.close(reader)
    bars = re.findall(r"\r *(\d+)%\|[^\r\n]*\| gap on cpu in float32: \d+ sampled", shown.decode())
    assert len(bars) > 3 and bars == sorted(bars, key=int)
    # the bar is erased before a line is printed
    assert all(not line.startswith(" ") for line in shown.decode().replace("\r\n", "\n").split("\n"))


def test_fit_names_every_phase_and_says_what_is_next(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "dpo", SHOWN) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    phases = {"loading", "digest", "sampling", "judging", "storing", "references", "training", "measuring", "saving"}
    assert phases <= named(lines)
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 2 and all("train/loss" in line and "generation" in line for line in epochs)
    assert epochs[0].startswith("epoch 1 of 2: 1 batch in ")
    # without a summary there are no figures on test prompts: it says so, and the next command makes some
    assert any(line.startswith("no figures on test prompts: summary.folder is empty") for line in lines)
    assert out.splitlines()[-2:] == ["pool: runs/dpo/pool", "checkpoint: runs/dpo/checkpoints/last.ckpt"]
    assert main([*next_command(lines), *GAP]) == 0
    assert not re.search("warning", err, re.IGNORECASE)


def test_a_run_that_measured_nothing_is_reported_by_the_command_that_is_named(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "sft", SUMMARY) == 0
    capsys.readouterr()
    expect_error(main(["report", "runs/sft"]), capsys, "measured no test prompts", "unigap gap --checkpoint runs/sft")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stderr", sys.stdout)
        main(["report", "runs/sft"])
    command = re.search(r"unigap (fit --config .* --run NEW --summary.folder NEW)", capsys.readouterr().out)
    assert command and main(shlex.split(command[1])) == 0
    lines = capsys.readouterr().err.splitlines()
    assert next_command(lines) == ["report", "NEW"] and main(next_command(lines)) == 0


def test_a_progress_bar_of_the_users_own_takes_the_place_of_epochs(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "sft", {**SHOWN, "trainer.callbacks": "TQDMProgressBar"}) == 0
    out, err = capsys.readouterr()
    assert "Epoch 1: 100%" in out and "epoch 1 of 2" not in err


def test_validate_prints_each_figure_once(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert improve(janus_folder, "sft", SHOWN, verb="validate") == 0
    out, err = capsys.readouterr()
    assert "Validate metric" not in out and out.startswith("The gap, in %")
    lines = err.splitlines()
    assert {"loading", "sampling", "judging", "measuring"} <= named(lines) and next_command(lines)[0] == "fit"


def test_a_finished_run_says_what_shows_it(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert improve(janus_folder, "sft", {**SUMMARY, "summary.folder": "null"}) == 0
    capsys.readouterr()
    status = improve(janus_folder, "sft", {**SUMMARY, "summary.folder": "null", "resume": "must"})
    expect_error(status, capsys, "is finished", "see unigap report runs/sft")


def test_an_epoch_that_is_resumed_midway_is_shown(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {**SHOWN, "trainer.max_epochs": 1, "data.batch_size": 1, "checkpoint.every_n_train_steps": 1}
    flags |= {"trainer.limit_train_batches": 3}
    with pytest.raises(Killed), armed((SFTStage, "training_step", lambda function: at_call(3, kill, function), {})):
        improve(janus_folder, "sft", flags)
    capsys.readouterr()
    assert improve(janus_folder, "sft", {**flags, "resume": "must"}) == 0
    epochs = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert epochs and epochs[-1].startswith("epoch 1 of 1: 1 batch in ")


def test_progress_that_is_turned_off_stays_off(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "sft") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines if line != "Seed set to 0"] == ["no figures on test prompts", "next"]


def test_of_two_processes_one_speaks_and_no_library_warns(janus_folder: Path, tmp_path: Path) -> None:
    flags = {**TRAINER, **POOL, CHECKPOINT: janus_folder, **SHOWN, **DDP, "trainer.max_epochs": 1}
    command = [sys.executable, "-m", "unigap", *words("fit", "sft", flags)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stderr.splitlines()
    for start in ("epoch 1 of 1: ", "time: ", "next: "):
        assert sum(line.startswith(start) for line in lines) == 1, done.stderr
    assert not re.search("warn", done.stderr, re.IGNORECASE), done.stderr


def test_every_other_verb_ends_with_the_next_command(
    janus_folder: Path, small_demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_demo, "demo")
    Path("train.txt").write_text("a red circle\na blue ring\n")
    Path("test.txt").write_text("a green square\n")
    same = ["--checkpoint", str(janus_folder)]
    commands = {
        "report demo": "report: demo/report.html",
        "compare demo demo-2": "comparison: compare.html",
        "inspect demo": "",
        "pool verify demo/pool": "demo/pool: sound",
        "judge export demo/pool --n 2 --out sheet": "fill in: sheet/verdicts.csv",
        "judge import demo/pool sheet/verdicts.csv": "demo/pool: 2 verdicts by 'human'",
        "judge agreement demo/pool --judges random,oracle": "",
        "export pool demo/pool --out set": "data set: set",
        "prompts import train.txt --out train.jsonl": "prompts: train.jsonl (2)",
        "prompts audit train.txt test.txt --out clean.jsonl": "prompts: clean.jsonl (2)",
    }
    shutil.copytree("demo", "demo-2")
    for command, made in commands.items():
        decodes = same if command.startswith(("judge export", "export pool")) else []
        assert main([*command.split(), *decodes]) == 0, capsys.readouterr().err
        out, err = capsys.readouterr()
        assert made in out.splitlines() or not made, (command, out)
        assert err.splitlines()[-1].startswith("next: ") and "next: " not in out, (command, err)
        if command.startswith("judge export"):
            sheet = Path("sheet/verdicts.csv")
            sheet.write_text(re.sub(r",,,", ",yes,,", sheet.read_text()))


@pytest.mark.parametrize("verb", ["fit", "gap"])
def test_a_judge_that_does_not_load_is_noticed_before_anything_is_sampled(
    verb: str, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(janus_folder, "judge")
    Path("judge/chat_template.jinja").unlink()
    monkeypatch.delattr(sampling, "_draw_batch")
    judge = {"": "unigap.judges.VQAJudge", ".init_args.checkpoint": "judge"}
    if verb == "fit":
        # inside another judge too
        outer = "model.init_args.external"
        flags = {outer: "unigap.judges.InvertedJudge"}
        flags |= {f"{outer}.init_args.judge{name}": value for name, value in judge.items()}
        status = improve(janus_folder, "sft", flags)
    else:
        options = [word for name, value in judge.items() for word in (f"--external{name}", value)]
        status = main(["gap", "--checkpoint", str(janus_folder), *GAP, *options])
    expect_error(status, capsys, "'judge' has no chat template")
    assert not Path("runs/sft/pool").exists() or not Pool.open("runs/sft/pool").rounds
