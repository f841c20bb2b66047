"""The optimizer, its learning rate and gradient clipping, as a config names them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_points import EXACT, Killed, armed, at_call, differences, kill
from small_runs import expect_error, improve
from torch.utils._pytree import tree_leaves
from transformers import get_cosine_schedule_with_warmup, get_wsd_schedule

from unigap.stages import Constant, Cosine, ImproveStage, LRSchedule, WarmupStableDecay

STAGE = "model.init_args"
LR = 1.0e-2
# one epoch of three steps, with a learning rate that is not rising
SHORT = {**EXACT, "trainer.max_epochs": 1, "trainer.limit_train_batches": 3, f"{STAGE}.warmup_steps": 0}


def content(stage: str = "sft") -> dict[str, Any]:
    """What ``last.ckpt`` holds."""
    held: dict[str, Any] = torch.load(f"runs/{stage}/checkpoints/last.ckpt", weights_only=True)
    return held


def rate(stage: str = "sft") -> float:
    """The learning rate of the step after the last one."""
    return float(content(stage)["lr_schedulers"][0]["_last_lr"][0])


def test_the_default_optimizer_can_be_named(janus_folder: Path, here: Path) -> None:
    named = {f"{STAGE}.optimizer": "torch.optim.AdamW", f"{STAGE}.optimizer.init_args.weight_decay": 0}
    named |= {f"{STAGE}.lr_schedule": "Constant"}
    assert improve(janus_folder, "sft", SHORT) == 0
    assert improve(janus_folder, "sft", {**SHORT, **named, "run": "named"}) == 0
    left = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("runs/sft", "named")]
    assert all(torch.equal(value, left[1]["state_dict"][name]) for name, value in left[0]["state_dict"].items())
    assert differences(left[0]["optimizer_states"], left[1]["optimizer_states"]) == []


def test_a_named_optimizer_trains_with_its_options_and_continues(janus_folder: Path, here: Path) -> None:
    momentum = {f"{STAGE}.optimizer": "torch.optim.SGD", f"{STAGE}.optimizer.init_args.momentum": 0.9}
    flags = {**SHORT, **momentum, f"{STAGE}.lr": 0.1}
    assert improve(janus_folder, "sft", {**flags, "trainer.max_steps": 2}) == 0
    state = content()["optimizer_states"][0]
    assert state["param_groups"][0]["momentum"] == 0.9 and state["param_groups"][0]["initial_lr"] == 0.1
    assert all(set(of_weight) == {"momentum_buffer"} for of_weight in state["state"].values())
    assert improve(janus_folder, "sft", {**flags, "resume": "must"}) == 0
    assert improve(janus_folder, "sft", {**flags, "run": "whole"}) == 0
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    assert (
        differences(
            [content()[key] for key in ("state_dict", "optimizer_states")],
            [whole[key] for key in ("state_dict", "optimizer_states")],
        )
        == []
    )


def test_a_cosine_ends_with_the_run_whatever_the_redraws_add(janus_folder: Path, here: Path) -> None:
    cosine = {f"{STAGE}.lr_schedule": "Cosine", f"{STAGE}.lr_schedule.init_args.final": 0.25}
    flags = {**EXACT, **cosine, f"{STAGE}.lr": LR, f"{STAGE}.warmup_steps": 0, "trainer.max_epochs": 2}
    with (
        pytest.raises(Killed),
        armed((ImproveStage, "on_train_batch_start", lambda function: at_call(20, kill, function), {})),
    ):
        improve(janus_folder, "c_sft", {**flags, "checkpoint.every_n_train_steps": 1})
    halfway = content("c_sft")
    assert halfway["epoch"] == 1, "the second epoch, which has the rows of two rounds"
    assert improve(janus_folder, "c_sft", {**flags, "resume": "must", "checkpoint.every_n_train_steps": 1}) == 0
    assert rate("c_sft") == pytest.approx(0.25 * LR)
    assert improve(janus_folder, "c_sft", {**flags, "run": "whole"}) == 0
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    keys = ("state_dict", "optimizer_states", "lr_schedulers")
    assert differences([content("c_sft")[key] for key in keys], [whole[key] for key in keys]) == []


def test_steps_end_a_schedule_too(janus_folder: Path, here: Path) -> None:
    decay = {f"{STAGE}.lr_schedule": "WarmupStableDecay", f"{STAGE}.lr_schedule.init_args.decay": 0.5}
    flags = {
        **EXACT,
        **decay,
        f"{STAGE}.lr": LR,
        f"{STAGE}.warmup_steps": 0,
        "trainer.max_epochs": -1,
        "trainer.max_steps": 8,
    }
    flags["checkpoint.every_n_train_steps"] = 6
    with (
        pytest.raises(Killed),
        armed((ImproveStage, "on_train_batch_start", lambda function: at_call(7, kill, function), {})),
    ):
        improve(janus_folder, "sft", flags)
    assert rate() == pytest.approx(LR * 0.5), "two of the last four steps are done"


def test_the_end_of_a_falling_learning_rate_stays(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {**SHORT, f"{STAGE}.lr_schedule": "Cosine"}
    assert improve(janus_folder, "sft", flags) == 0
    longer = {**flags, "trainer.max_epochs": 2, "resume": "must"}
    told = ("--trainer.max_epochs was 1 and is 2", "the learning rate falls until the end", "init_from")
    expect_error(improve(janus_folder, "sft", longer), capsys, *told)
    other = {**flags, f"{STAGE}.lr_schedule": "Constant", "resume": "must"}
    expect_error(improve(janus_folder, "sft", other), capsys, "lr_schedule", "Cosine", "Constant")
    status = improve(janus_folder, "sft", {**flags, "resume": "must"})
    expect_error(status, capsys, "finished", "begin another run")


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_the_trainer_clips_gradients(algorithm: str, janus_folder: Path, here: Path) -> None:
    clip = {"trainer.gradient_clip_val": 0.001, "trainer.gradient_clip_algorithm": algorithm}
    one_step = {**SHORT, "trainer.limit_train_batches": 1, f"{STAGE}.optimizer": "torch.optim.SGD", f"{STAGE}.lr": 1.0}
    assert improve(janus_folder, "sft", {**one_step, **clip}) == 0
    # the second factor of an adapter starts at 0, and until then the first one has no gradient
    trained = [value for name, value in content()["state_dict"].items() if "lora_B" in name]
    step = torch.cat([value.flatten() for value in trained]).double()
    size = step.norm() if algorithm == "norm" else step.abs().max()
    assert size.item() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (Cosine(), lambda optimizer: get_cosine_schedule_with_warmup(optimizer, 0, 10)),
        (
            WarmupStableDecay(decay=0.3, final=0.1),
            lambda optimizer: get_wsd_schedule(
                optimizer, 0, 3, num_stable_steps=7, decay_type="linear", min_lr_ratio=0.1
            ),
        ),
    ],
)
def test_a_schedule_agrees_with_that_of_transformers(schedule: LRSchedule, theirs: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs(optimizer)
    for step in range(11):
        assert schedule.factor(step / 10) == pytest.approx(scheduler.get_last_lr()[0]), step
        optimizer.step()
        scheduler.step()


def test_a_constant_schedule_is_exactly_one() -> None:
    assert {Constant().factor(done) for done in (0.0, 0.3, 1.0)} == {1.0}


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_an_eight_bit_optimizer_continues_exactly(janus_folder: Path, here: Path) -> None:
    eight_bit = {f"{STAGE}.optimizer": "bitsandbytes.optim.AdamW8bit"}
    # states of small tensors stay in 32 bit otherwise, and all tensors here are small
    flags = {**SHORT, **eight_bit, f"{STAGE}.optimizer.init_args.min_8bit_size": 16}
    assert improve(janus_folder, "sft", {**flags, "trainer.max_steps": 2}) == 0
    leaves = tree_leaves(content()["optimizer_states"][0]["state"])
    assert any(leaf.dtype == torch.uint8 for leaf in leaves if torch.is_tensor(leaf))
    assert improve(janus_folder, "sft", {**flags, "resume": "must"}) == 0
    assert improve(janus_folder, "sft", {**flags, "run": "whole"}) == 0
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    keys = ("state_dict", "optimizer_states")
    assert differences([content()[key] for key in keys], [whole[key] for key in keys]) == []


def test_a_missing_eight_bit_optimizer_is_named_with_its_install_line(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Missing:
        @staticmethod
        def find_spec(name: str, *rest: Any) -> None:
            if name.partition(".")[0] == "bitsandbytes":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    status = improve(janus_folder, "sft", {f"{STAGE}.optimizer": "bitsandbytes.optim.AdamW8bit"})
    expect_error(status, capsys, "bitsandbytes is not installed; pip install 'unigap[quantized]'")
