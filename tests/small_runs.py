"""Small runs for the tests: command lines, shipped configs in small, and the files of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from unigap.__main__ import main
from unigap.cli.commands import demo
from unigap.models.files.shards import SHARDS, in_one_piece

CONFIGS = Path(__file__).parents[1] / "configs" / "shapes"
TRAINER = {
    "trainer.accelerator": "cpu",
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": 2,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
}
POOL = {
    "data.per_cell": 1,
    "data.eval_per_cell": 1,
    "data.exam_pictures": 10,
    "data.batch_size": 4,
    "regrow.plan.candidates": 4,
    "summary.folder": "",
}
SUMMARY = {"summary.per_cell": 1, "summary.plan.candidates": 2, "summary.exam": 10, "summary.gallery": 5}
SMALL_DEMO = {
    # every accepted image is a row, and discarded prompts come back after each epoch
    "model.init_args.objective": {"class_path": "unigap.objectives.SFT", "init_args": {"keep": 4}},
    "model.init_args.schedule": {"every_n_epochs": 1, "at_epochs": [], "redraw": "discarded"},
    "data.init_args.per_cell": 2,
    "data.init_args.batch_size": 1,
    "regrow.plan.candidates": 2,
    "summary.per_cell": 1,
    "summary.exam": 10,
    "trainer.max_epochs": 2,
}
"""Options of `unigap fit` that make a demo small."""
CHECKPOINT = "model.init_args.model.init_args.checkpoint"
# two candidates a prompt, three in ten accepted: about half of the prompts are discarded in each round
FICKLE = {
    "model.init_args.judge": "unigap.judges.RandomJudge",
    "model.init_args.judge.init_args.yes_rate": 0.3,
    "regrow.plan.candidates": 2,
}
# Dynamics at the second and the fourth step
WATCHED = {
    "trainer.callbacks+": "unigap.callbacks.Dynamics",
    "trainer.callbacks.folder": "watched",
    "trainer.callbacks.per_group": 4,
    "trainer.callbacks.step_every": 2,
    "trainer.callbacks.gram_every": 2,
    "trainer.callbacks.permutations": 20,
}
PRETRAIN = {
    "model.init_args.tokenizer_from": "null",
    "trainer.callbacks.per_cell": 1,
    "trainer.callbacks.candidates": 1,
    "data.instruct_steps": 0,
    "data.tokenizer_steps": 3,
    "data.trunk_steps": 2,
    "data.tokenizer_batch": 2,
    "data.trunk_batch": 2,
    "model.init_args.untrained.init_args.hidden_size": 32,
    "model.init_args.untrained.init_args.layers": 1,
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": "null",
}


def words(verb: str, config: str, flags: Mapping[str, object]) -> list[str]:
    """``VERB --config configs/shapes/CONFIG.yaml`` with flags."""
    listed = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [verb, "--config", str(CONFIGS / f"{config}.yaml"), *listed]


def improve(checkpoint: Path, config: str, flags: Mapping[str, object] | None = None, verb: str = "fit") -> int:
    """Run a shipped self-improvement config in small on a checkpoint; return the exit status."""
    return main(words(verb, config, {**TRAINER, **POOL, CHECKPOINT: checkpoint, **(flags or {})}))


def shrink_demo(patch: pytest.MonkeyPatch, more: Mapping[str, object] | None = None) -> None:
    """Make ``unigap demo`` a small run of one epoch, with more options of ``unigap fit``."""
    run, small = demo.run_demo, {**SMALL_DEMO, "trainer.max_epochs": 1, **(more or {})}

    def small_run(start: Any, folder: Path, seed: int, given: Mapping[str, Any], command: Any) -> dict[str, Any]:
        return run(start, folder, seed, {**small, **given}, command)

    patch.setattr(demo, "run_demo", small_run)


def epochs(run: Path) -> list[list[str]]:
    """Return the rows that each epoch trained on."""
    lines = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(len(lines)))
    return [line["rows"] for line in lines]


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a Lightning checkpoint, whole also if it was saved in shards."""
    content = torch.load(checkpoint, weights_only=True)
    if SHARDS in content:
        content = in_one_piece(content, checkpoint.parent)
    tensors: dict[str, torch.Tensor] = content["state_dict"]
    return tensors


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expect_error(status: object, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """Assert exit status 2 and exactly one ``error:`` line, the last one, which contains all parts."""
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error" in line.lower()]
    assert status == 2, lines
    assert len(errors) == 1 and errors[0] == lines[-1] and errors[0].startswith("error: "), lines
    assert not any("Traceback" in line for line in lines)
    assert len(errors[0]) < 300 and "Union" not in errors[0], errors[0]
    for part in parts:
        assert part in errors[0], errors[0]


def same(ours: Any, theirs: Mapping[str, torch.Tensor]) -> bool:
    """Whether two states hold the same tensors, bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
