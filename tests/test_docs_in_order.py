"""Commands of the quickstart and of the reproduction page run in the order of the page, on small models."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from small_runs import POOL, SUMMARY, TRAINER
from test_docs import DOCS, ROOT, commands
from test_model_configs import PROMPTS

from unigap.__main__ import main

SMALL_SHAPES = {**POOL, **SUMMARY, **TRAINER, "summary.folder": "null", "trainer.max_epochs": 1}
SMALL_GAP = {"per_cell": 1, "candidates": 1}
ALONE = ("demo ", "gap --per_cell")
"""Commands that no other one depends on and that other tests run."""
SMALL_JANUS_PRO = {
    "model.init_args.judge": "unigap.judges.RandomJudge",
    "model.init_args.eval_plan.candidates": 1,
    "regrow.plan.candidates": 4,
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "trainer.strategy": "auto",
    "model.init_args.model.init_args.dtype": "float32",
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": "false",
}


@pytest.fixture
def clone(here: Path) -> Iterator[Path]:
    """A working directory with the configs and examples of a clone."""
    (here / "configs").symlink_to(ROOT / "configs")
    (here / "docs").symlink_to(DOCS)
    before = dict(os.environ)
    yield here
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def flags(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def run(command: str, small: Mapping[str, Mapping[str, object]]) -> object:
    """Run a documented command with the options of its verb in ``small``; return the exit status.

    Options of the page come last and win.
    """
    words = shlex.split(command)
    configs = [number for number, word in enumerate(words) if word == "--config"]
    end = configs[-1] + 2 if configs else 1
    try:
        return main([*words[:end], *flags(small.get(words[0], {})), *words[end:]])
    except SystemExit as ended:
        return ended.code


def test_the_quickstart_runs_in_order(clone: Path, small_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(small_demo, clone / "runs/demo")
    small = {verb: SMALL_SHAPES for verb in ("fit", "validate", "predict")} | {"gap": SMALL_GAP}
    for command in commands(DOCS / "quickstart.md"):
        if not command.startswith(ALONE):
            assert run(command, small) in (0, None), (command, capsys.readouterr().err)


def test_the_reproduction_runs_in_order(clone: Path, janus_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone / "data/t2i_compbench").mkdir(parents=True)
    for name, lines in PROMPTS.items():
        (clone / f"data/t2i_compbench/{name}.txt").write_text("\n".join(lines))
    checkpoints = [f"model.init_args.{part}.init_args.checkpoint" for part in ("model", "external")]
    small = dict.fromkeys(("fit", "validate"), SMALL_JANUS_PRO | dict.fromkeys(checkpoints, janus_folder))
    for command in commands(DOCS / "reproduce.md"):
        assert run(command, small) in (0, None), (command, capsys.readouterr().err)
