"""A continued run keeps its recipe and its place, and every run reaches its end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_points import EXACT, Killed, armed, at_call, differences, kill, send
from lightning.pytorch import Callback, LightningModule, Trainer
from small_runs import PRETRAIN, SUMMARY, TRAINER, epochs, expect_error, improve, words

from unigap.__main__ import main
from unigap.callbacks import run_summary
from unigap.files.durable import MANIFEST, unseal
from unigap.loop.schedule import stalled_epochs
from unigap.objectives import RowBatch
from unigap.pool import Pool
from unigap.pool.layout import REFERENCES
from unigap.stages import ImproveStage, PretrainStage

LONG = {**EXACT, "trainer.max_epochs": 3}
# the first epoch alone; 16 rows in batches of one
ONE = {**EXACT, "trainer.max_epochs": 1}


def content(stage: str) -> dict[str, Any]:
    """What ``last.ckpt`` holds."""
    held: dict[str, Any] = torch.load(f"runs/{stage}/checkpoints/last.ckpt", weights_only=True)
    return held


def phase(stage: str) -> str:
    """The phase in ``last.ckpt``."""
    return str(content(stage)["callbacks"]["RunCheckpoint"]["phase"])


def left(stage: str) -> dict[str, Any]:
    """Everything a run leaves that must not depend on stops."""
    held, run = content(stage), Path("runs") / stage
    return {
        "weights": held["state_dict"],
        "optimizer": held["optimizer_states"],
        "schedule": held["lr_schedulers"],
        "pool": Pool.open(run / "pool").state(),
        "rows": epochs(run),
        "curves": json.loads((run / "curves.json").read_text()),
    }


@pytest.fixture(scope="module")
def whole(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, object]], Any]:
    """What an uninterrupted run of two epochs leaves."""
    known: dict[str, dict[str, Any]] = {}

    def run(stage: str, more: dict[str, object]) -> dict[str, Any]:
        name = f"{stage}{more}"
        if name not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path_factory.mktemp(stage))
                assert improve(janus_folder, stage, {**EXACT, **more}) == 0
                known[name] = left(stage)
        return known[name]

    return run


class StopsAt(Callback):
    """Asks the trainer to stop behind a batch of the first epoch, as a time limit does."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: RowBatch, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 0 and batch_idx == 2:
            trainer.should_stop = True


STOPS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "max_steps inside an epoch": ({"trainer.max_steps": 5}, {}),
    "limit_train_batches": ({"trainer.max_epochs": 1, "trainer.limit_train_batches": 3}, {}),
    "max_steps and accumulation": ({"trainer.max_steps": 2}, {"trainer.accumulate_grad_batches": 2}),
}


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("stage", ["sft", "c_sft"])
def test_an_epoch_cut_short_goes_on_where_it_was_cut(
    name: str, stage: str, whole: Callable[..., Any], janus_folder: Path, here: Path
) -> None:
    cut, recipe = STOPS[name]
    if stage == "c_sft" and recipe:
        pytest.skip("one stage is enough")
    expected = whole(stage, recipe)
    assert improve(janus_folder, stage, {**EXACT, **recipe, **cut}) == 0
    assert phase(stage) == "done"
    assert Pool.open(f"runs/{stage}/pool").rounds == (0,), "no round is drawn inside an epoch"
    assert improve(janus_folder, stage, {**EXACT, **recipe, "resume": "must"}) == 0
    assert differences(left(stage), expected) == []


def test_a_stop_waits_for_the_step_and_is_continued(
    whole: Callable[..., Any], janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, object] = {"trainer.accumulate_grad_batches": 2}
    expected = whole("sft", recipe)
    timed = {**EXACT, **recipe, "trainer.max_time": "00:01:00:00"}
    from lightning.pytorch.callbacks import Timer

    with monkeypatch.context() as patch:
        patch.setattr(Timer, "on_train_batch_end", StopsAt.on_train_batch_end)
        assert improve(janus_folder, "sft", timed) == 0
    assert content("sft")["global_step"] == 2, "batches 1 to 3, and the one that completes the step"
    assert improve(janus_folder, "sft", {**EXACT, **recipe, "resume": "must"}) == 0
    assert differences(left("sft"), expected) == []


def test_a_run_ended_at_the_last_batch_of_an_epoch_trains_no_batch_twice(
    whole: Callable[..., Any], janus_folder: Path, here: Path
) -> None:
    expected = whole("sft", {})
    steps = len(expected["rows"][0])
    assert improve(janus_folder, "sft", {**EXACT, "trainer.max_steps": steps}) == 0
    assert improve(janus_folder, "sft", {**EXACT, "trainer.max_steps": 2 * steps, "resume": "must"}) == 0
    assert differences(left("sft"), expected) == []


MEASURED = {**ONE, **SUMMARY, "summary.folder": "runs/sft", "trainer.max_epochs": 1}


@pytest.mark.parametrize("how", ["killed", "SIGTERM", "no space"])
def test_a_run_that_ends_while_it_is_measured_is_measured_again(
    how: str, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acts: dict[str, tuple[Any, str, Callable[[], None]]] = {
        "killed": (run_summary, "rejudge", kill),
        "SIGTERM": (run_summary, "rejudge", send(signal.SIGTERM)),
        "no space": (run_summary, "write_gallery", _no_space),
    }
    owner, name, act = acts[how]
    try:
        with armed((owner, name, lambda function: at_call(1, act, function), {})):
            status = improve(janus_folder, "sft", MEASURED)
    except Killed:
        status = -9
    assert status == {"killed": -9, "SIGTERM": 143, "no space": 2}[how]
    summary = Path("runs/sft/summary.json")
    assert phase("sft") == "measuring" and not summary.exists()
    capsys.readouterr()
    assert improve(janus_folder, "sft", {**MEASURED, "resume": "auto"}) == 0
    assert phase("sft") == "done" and summary.is_file()
    assert "--resume" not in json.loads(summary.read_text())["command"]
    assert len(epochs(Path("runs/sft"))) == 1, "nothing is trained again"
    # finished: auto says so and ends well, must is a mistake
    capsys.readouterr()
    assert improve(janus_folder, "sft", {**MEASURED, "resume": "auto"}) == 0
    assert "is finished" in capsys.readouterr().out
    expect_error(improve(janus_folder, "sft", {**MEASURED, "resume": "must"}), capsys, "finished", "max_epochs")


def _no_space() -> None:
    raise OSError(28, "No space left on device", "runs/sft/gallery")


def test_sigterm_in_the_first_measurement_ends_it(janus_folder: Path, here: Path) -> None:
    measure = run_summary.measure

    def asked(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments)

    with armed((run_summary, "measure", lambda _: asked, {})):
        assert improve(janus_folder, "sft", MEASURED) == 143
    assert not Path("runs/sft/checkpoints/last.ckpt").exists()
    assert improve(janus_folder, "sft", {**MEASURED, "resume": "auto"}) == 0


def test_pretraining_killed_at_its_end_still_writes_its_checkpoint(here: Path) -> None:
    flags = {**TRAINER, **PRETRAIN, "model.init_args.out": "made"}
    with (
        pytest.raises(Killed),
        armed((PretrainStage, "on_train_end", lambda function: at_call(1, kill, function), {})),
    ):
        main(words("fit", "pretrain", flags))
    assert not Path("made").exists()
    assert main(words("fit", "pretrain", {**flags, "resume": "must"})) == 0
    assert (here / "made/model.safetensors").is_file()


def test_fast_dev_run_leaves_nothing_to_continue_from(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "sft", {**MEASURED, "trainer.fast_dev_run": "true"}) == 0
    assert not list(here.rglob("*.ckpt*")) and not list(here.rglob("config.yaml"))
    assert not (here / "runs/sft/summary.json").exists()


CHANGES: dict[str, tuple[str, object, str]] = {
    "lr": ("model.init_args.lr", 0.5, "was 0.01 and is 0.5"),
    "optimizer": ("model.init_args.optimizer", "torch.optim.SGD", "torch.optim.SGD"),
    "learning-rate schedule": ("model.init_args.lr_schedule", "Cosine", "unigap.stages"),
    "weight decay": ("model.init_args.weight_decay", 0.5, "was 0.0 and is 0.5"),
    "batch size": ("data.batch_size", 2, "--data.init_args.batch_size was 1 and is 2"),
    "data seed": ("data.seed", 9, "was None and is 9"),
    "per_cell": ("data.per_cell", 2, "was 1 and is 2"),
    "order": ("data.order", "easy_first", "'random'"),
    "threshold": ("model.init_args.objective.init_args.threshold", 0.7, "was 0.5 and is 0.7"),
    "keep": ("model.init_args.objective.init_args.keep", 1, "was 4 and is 1"),
    "judge": ("model.init_args.judge.init_args.seed", 7, "was None and is 7"),
    "external judge": ("model.init_args.external", "unigap.judges.RandomJudge", "--model.init_args.external"),
    "candidates": ("regrow.plan.candidates", 3, "was 2 and is 3"),
    "temperature": ("regrow.plan.sampling.temperature", 0.5, "was 1.0 and is 0.5"),
    "accumulation": ("trainer.accumulate_grad_batches", 2, "was 1 and is 2"),
    "seed": ("seed_everything", 3, "was 0 and is 3"),
    "LoRA rank": ("model.init_args.model.init_args.lora_rank", 4, "was 2 and is 4"),
    "guard": ("trainer.callbacks+", "unigap.callbacks.Guard", "--trainer.callbacks.Guard"),
}


@pytest.fixture(scope="module")
def finished(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one epoch; leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert improve(janus_folder, "sft", ONE) == 0
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_recipe_is_refused_in_one_line(
    name: str, finished: Path, janus_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    option, value, told = CHANGES[name]
    monkeypatch.chdir(finished)
    before = Path("runs/sft/checkpoints/last.ckpt").read_bytes(), Path("runs/sft/checkpoints/config.yaml").read_text()
    remedy = "export model" if "lora" in option else "--model.init_args.init_from"
    status = improve(janus_folder, "sft", {**EXACT, option: value, "resume": "must"})
    expect_error(status, capsys, told, remedy)
    after = Path("runs/sft/checkpoints/last.ckpt").read_bytes(), Path("runs/sft/checkpoints/config.yaml").read_text()
    assert after == before


def test_what_a_continued_run_may_change_takes_effect(
    whole: Callable[..., Any], janus_folder: Path, here: Path
) -> None:
    expected = whole("sft", {})
    assert improve(janus_folder, "sft", ONE) == 0
    free = {"regrow.plan.images_per_batch": 4, "trainer.log_every_n_steps": 2, "checkpoint.keep_epochs": "true"}
    assert improve(janus_folder, "sft", {**EXACT, **free, "resume": "must"}) == 0
    assert differences(left("sft"), expected) == []
    assert [path.name for path in sorted(Path("runs/sft/checkpoints").glob("epoch-*"))] == ["epoch-0002.ckpt"]
    assert "max_epochs: 2" in Path("runs/sft/checkpoints/config.yaml").read_text()


def test_a_limit_that_cut_an_epoch_behind_is_not_lifted(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert improve(janus_folder, "sft", {**EXACT, "trainer.limit_train_batches": 2}) == 0
    capsys.readouterr()
    status = improve(janus_folder, "sft", {**LONG, "resume": "must"})
    expect_error(status, capsys, "limit_train_batches", "epochs that lie behind")


LACKING = {"callbacks": "callbacks", "PoolData": "the data", "optimizer_states": "the optimizer", "loops": "the loop"}


@pytest.mark.parametrize("part", LACKING)
def test_a_checkpoint_that_lacks_a_part_is_refused(
    part: str, finished: Path, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = torch.load(finished / "runs/sft/checkpoints/last.ckpt", weights_only=True)
    del held[part]
    torch.save(held, "part.ckpt")
    status = improve(janus_folder, "sft", {**EXACT, "ckpt_path": "part.ckpt"})
    expect_error(status, capsys, "part.ckpt", f"no state of {LACKING[part]}", "init_from")
    assert not Path("runs").exists()


def test_a_run_without_its_pool_begins_no_other(
    finished: Path, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = finished / "runs/sft/checkpoints/last.ckpt"
    status = improve(janus_folder, "sft", {**EXACT, "ckpt_path": last, "data.pool": "elsewhere"})
    expect_error(status, capsys, "elsewhere", "was trained on")
    assert not Path("elsewhere").exists()


def test_other_prompts_in_the_same_file_are_refused(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.txt").write_text("a red circle\na blue ring\na green square\n")
    Path("held.txt").write_text("a yellow ring\n")
    own = {**ONE, "data.prompts": "mine.txt", "data.eval_prompts": "held.txt", "data.per_cell": 9}
    own |= {"model.init_args.judge.init_args.yes_rate": 0.9}
    assert improve(janus_folder, "sft", own) == 0
    capsys.readouterr()
    Path("mine.txt").write_text("a red circle\na blue ring\na green ring\n")
    status = improve(janus_folder, "sft", {**own, "trainer.max_epochs": 2, "resume": "must"})
    expect_error(status, capsys, "data.prompts", "earlier files")


class Counts(Callback):
    """Keeps a numpy number, as sums of arrays are."""

    def state_dict(self) -> dict[str, Any]:
        return {"loss": np.float64(0.5)}


def test_what_cannot_be_loaded_again_is_named_at_the_first_save(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = improve(janus_folder, "sft", {**ONE, "trainer.callbacks+": "test_continued_runs.Counts"})
    expect_error(status, capsys, "Counts", "state_dict")
    assert not list(here.rglob("last.ckpt"))


def test_slurms_warning_signal_saves_and_requeues(
    whole: Callable[..., Any], janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole("sft", {})
    scontrol = here / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $* >> {here}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    slurm = {"SLURM_NTASKS": 1, "SLURM_JOB_ID": 77, "SLURM_JOB_NAME": "mine", "SLURM_PROCID": 0, "SLURM_LOCALID": 0}
    for name, value in {**slurm, "SLURM_NODEID": 0, "SLURM_NNODES": 1}.items():
        monkeypatch.setenv(name, str(value))
    step = ImproveStage.training_step

    def warned(self: ImproveStage, batch: RowBatch, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ImproveStage, "training_step", warned)
        assert improve(janus_folder, "sft", {**EXACT, "trainer.devices": 1}) == 128 + signal.SIGUSR1
    assert (here / "asked").read_text() == "requeue 77\n"
    assert content("sft")["global_step"] == 3
    # SLURM starts the same command again
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert improve(janus_folder, "sft", {**EXACT, "trainer.devices": 1}) == 0
    assert differences(left("sft"), expected) == []


def test_patience_counts_epochs_with_a_validation_only(janus_folder: Path, here: Path) -> None:
    assert stalled_epochs({}, 1) == set()
    assert stalled_epochs({2: 0.5, 4: 0.5}, 1) == {4}
    schedule = {"every_n_epochs": 0, "patience": 1}
    waiting = {**LONG, "trainer.limit_val_batches": 1}
    waiting |= {f"model.init_args.schedule.{name}": value for name, value in schedule.items()}
    # validation after the third epoch alone: nothing to compare it with
    assert improve(janus_folder, "c_sft", {**waiting, "trainer.check_val_every_n_epoch": 3}) == 0
    assert Pool.open("runs/c_sft/pool").rounds == (0,)


def test_batches_of_one_step_drop_and_mask_different_units(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    step = ImproveStage.training_step

    def noted(self: ImproveStage, batch: RowBatch, batch_idx: int) -> torch.Tensor:
        with torch.random.fork_rng():
            drawn.append(float(torch.rand(())))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ImproveStage, "training_step", noted)
    few = {**ONE, "trainer.limit_train_batches": 4}
    assert improve(janus_folder, "sft", few) == 0
    alone = drawn.copy()
    drawn.clear()
    more = {"trainer.accumulate_grad_batches": 4, "run": "other"}
    assert improve(janus_folder, "sft", {**few, **more}) == 0
    assert len({*drawn}) == 4 and drawn[0] == alone[0], "the first batch of a step draws as without accumulation"


def test_references_of_another_precision_are_not_reused(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "dpo", ONE) == 0
    other = {**ONE, "trainer.precision": "bf16-mixed", "run": "other", "data.pool": "runs/dpo/pool"}
    assert improve(janus_folder, "dpo", other) == 0
    pool = Pool.open("runs/dpo/pool")
    keys = sorted({*unseal(pool.folder / REFERENCES / MANIFEST).content["models"].values()})
    assert len(keys) == 2 and sum(key.endswith("/bf16-mixed") for key in keys) == 1
    assert pool.references(keys[0]).keys() == pool.references(keys[1]).keys()
    assert pool.references(keys[0]) != pool.references(keys[1])
