"""Where a run can be killed, how to kill it there, and what a run leaves behind that must not depend on it."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from small_runs import FICKLE, improve

from unigap.callbacks import run_checkpoint
from unigap.judges import RandomJudge
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.pool.shards import RoundWriter
from unigap.stages import ImproveStage

STAGES = ("sft", "dpo", "c_sft", "grpo")
# dropout, AdamW and a schedule that is still rising when the run is killed
EXACT = {
    **FICKLE,
    "regrow.plan.images_per_batch": 8,
    "data.batch_size": 1,
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": "null",
    "trainer.limit_val_batches": 0,
    "data.exam_pictures": 0,
    "model.init_args.warmup_steps": 1000,
    "model.init_args.lr": 1.0e-2,
    "model.init_args.model.init_args.lora_rank": 2,
    "model.init_args.model.init_args.lora_dropout": 0.2,
}

# a new round for the next eight prompts every five steps: two batches a round, passes over rows that end in the middle
ONLINE = {
    **EXACT,
    "trainer.max_epochs": 3,
    "model.init_args.schedule.every_n_steps": 5,
    "model.init_args.schedule.prompts": 8,
    "model.init_args.objective.init_args.reuse": 2,
    "regrow.plan.sampling.cfg": 2.0,
}


def flags_of(stage: str) -> dict[str, object]:
    """The flags of a stage's run."""
    return ONLINE if stage == "grpo" else EXACT


class Killed(BaseException):
    """The process is gone: no handler runs, nothing is saved."""


def at_call(number: int, act: Callable[[], None], function: Any) -> Any:
    """``function``, which acts before its ``number``-th call, counted from 1."""
    calls = 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return function(*args, **options)

    return counted


def in_step(epoch: int, batch: int, act: Callable[[], None]) -> Any:
    """A training step that acts in one batch of one epoch; batch -1 is the last."""
    step = ImproveStage.training_step

    def acting(self: ImproveStage, rows: Any, batch_idx: int) -> torch.Tensor:
        wanted = batch % self.trainer.num_training_batches
        if self.trainer.current_epoch == epoch and batch_idx == wanted:
            act()
        return step(self, rows, batch_idx)

    return acting


def kill() -> None:
    raise Killed


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


# (what is replaced, by what, flags of the run that is killed)
Point = tuple[Any, str, Callable[[Any], Any], dict[str, object]]
EVERY_STEP: dict[str, object] = {"checkpoint.every_n_train_steps": 1}
FIRST_ROUND = 4 // int(os.environ.get("WORLD_SIZE", 1))
"""Batches of the first round that each process draws."""
LAST = 2 if FIRST_ROUND == 4 else 1
"""The last batch of the second round that each process draws."""
LATER = FIRST_ROUND + LAST
"""The same, counted from the first round."""
POINTS: dict[str, Callable[[Callable[[], None]], Point]] = {
    "first sampling": lambda act: (Janus, "sample_images", lambda f: at_call(2, act, f), {}),
    "judging": lambda act: (RandomJudge, "logits", lambda f: at_call(2, act, f), {}),
    "pool write": lambda act: (RoundWriter, "write", lambda f: at_call(2, act, f), {}),
    "pool commit": lambda act: (RoundWriter, "commit", lambda f: at_call(1, act, f), {}),
    "checkpoint write": lambda act: (run_checkpoint, "rename_durable", lambda f: at_call(2, act, f), {}),
    "last batch": lambda act: (ImproveStage, "training_step", lambda _: in_step(0, -1, act), EVERY_STEP),
    "after the last batch": lambda act: (ImproveStage, "on_train_epoch_end", lambda f: at_call(1, act, f), EVERY_STEP),
    "epoch end": lambda act: (ImproveStage, "training_step", lambda _: in_step(1, 0, act), {}),
    "mid-epoch": lambda act: (ImproveStage, "training_step", lambda _: in_step(1, 2, act), EVERY_STEP),
}
"""Where a run can be killed, by name; the function takes what is done there."""
# only a curriculum draws again
REGROWTH: dict[str, Callable[[Callable[[], None]], Point]] = {
    "sampling again": lambda act: (Janus, "sample_images", lambda f: at_call(LATER, act, f), {}),
    "pool write of a later round": lambda act: (RoundWriter, "write", lambda f: at_call(LATER, act, f), {}),
    "commit of a later round": lambda act: (RoundWriter, "commit", lambda f: at_call(2, act, f), {}),
}
# in the order of a run, which is stopped by one after another
SIGNALS: dict[str, tuple[int, Point]] = {
    "SIGTERM while sampling": (143, (Janus, "sample_images", lambda f: at_call(2, send(signal.SIGTERM), f), {})),
    "SIGTERM in the last batch": (
        143,
        (ImproveStage, "training_step", lambda _: in_step(0, -1, send(signal.SIGTERM)), {}),
    ),
    "SIGTERM while sampling again": (
        143,
        (Janus, "sample_images", lambda f: at_call(LAST, send(signal.SIGTERM), f), {}),
    ),
    "SIGTERM": (143, (ImproveStage, "training_step", lambda _: in_step(1, 1, send(signal.SIGTERM)), {})),
    "SIGINT": (130, (ImproveStage, "training_step", lambda _: in_step(1, 2, send(signal.SIGINT)), {})),
}


def points_of(stage: str) -> dict[str, Callable[[Callable[[], None]], Point]]:
    """The kill points a stage can reach."""
    if stage == "grpo":
        some = ("mid-epoch", "after the last batch", "pool write", "checkpoint write")
        return {name: POINTS[name] for name in some} | REGROWTH
    return POINTS | (REGROWTH if stage.startswith("c_") else {})


def signals_of(stage: str) -> list[str]:
    """The signals that stop a run of a stage, in the order of the run."""
    if stage == "grpo":
        return ["SIGTERM while sampling", "SIGTERM while sampling again", "SIGTERM"]
    return [name for name in SIGNALS if stage.startswith("c_") or name != "SIGTERM while sampling again"]


@contextlib.contextmanager
def armed(point: Point) -> Iterator[None]:
    """The kill point is in place."""
    owner, name, replace, _ = point
    with patch.object(owner, name, replace(getattr(owner, name))):
        yield


def copy_at_kill_points(
    checkpoint: Path,
    stage: str,
    folder: Path,
    flags: Mapping[str, object],
    names: Sequence[str] | None = None,
    copy: Callable[[Path, Path], object] = shutil.copytree,
) -> dict[str, Any]:
    """Run a stage to its end, and copy its files at each kill point to a subfolder with the point's name.

    A process that is killed leaves what is on the disk at that moment and nothing else, so the copy stands for a killed
    run. The stage runs twice, with and without a checkpoint after every step, which must make no difference.

    Returns:
        What the run leaves behind.
    """
    ended = []
    for number, more in enumerate(({}, EVERY_STEP)):
        home = folder / f"uninterrupted-{number}"
        home.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack, contextlib.chdir(home):
            for name in names or points_of(stage):
                point = points_of(stage)[name](functools.partial(copy, home / "runs", folder / name / "runs"))
                if point[3] == more:
                    stack.enter_context(armed(point))
            assert improve(checkpoint, stage, {**flags, **more}) == 0
            ended.append(left_behind(stage))
    assert differences(*ended) == []
    return ended[0]


def run_killed(checkpoint: Path, stage: str, name: str, flags: dict[str, object] | None = None) -> None:
    """Runs a stage in the present folder until it is killed; checks that it was."""
    point, flags, status = points_of(stage)[name](kill), flags or flags_of(stage), None
    with contextlib.suppress(Killed), armed(point):
        status = improve(checkpoint, stage, {**flags, **point[3]})
    assert status is None, f"{name}: the run ended"


def run_stopped(checkpoint: Path, stage: str, name: str, flags: dict[str, object] | None = None) -> None:
    """Begins or continues a run of a stage in the present folder until a signal stops it; checks that it did."""
    status, point = SIGNALS[name]
    with armed(point):
        found = improve(checkpoint, stage, {**(flags or flags_of(stage)), "resume": "auto"})
    assert found == status, name


def left_behind(stage: str) -> dict[str, Any]:
    """Everything a run leaves in the present folder that must be the same after a kill."""
    run = Path("runs") / stage
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        "weights": last["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "pool": Pool.open(run / "pool").state(),
        "rows": (run / "rows.jsonl").read_text(),
        "curves": (run / "curves.json").read_text(),
    }


def differences(mine: Any, other: Any, path: str = "") -> list[str]:
    """Where two nested values are not the same, bit for bit."""
    if isinstance(mine, torch.Tensor):
        return [] if torch.equal(mine, other) else [path]
    if isinstance(mine, dict):
        if mine.keys() != other.keys():
            return [f"{path}: keys"]
        return [found for key in mine for found in differences(mine[key], other[key], f"{path}/{key}")]
    if isinstance(mine, list):
        if len(mine) != len(other):
            return [f"{path}: length"]
        pairs = zip(mine, other, strict=True)
        return [found for i, (a, b) in enumerate(pairs) for found in differences(a, b, f"{path}/{i}")]
    return [] if mine == other else [f"{path}: {mine!r} is not {other!r}"]
