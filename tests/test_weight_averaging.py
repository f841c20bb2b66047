"""Lightning's averaged weights in a self-improvement run: what is kept, and that such a run continues bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import FICKLE, improve, same, state

AVERAGE = {
    **FICKLE,
    "regrow.every_n_epochs": 1,
    "trainer.callbacks+": "lightning.pytorch.callbacks.EMAWeightAveraging",
    "trainer.callbacks.init_args.decay": 0.5,
    "trainer.callbacks.init_args.update_every_n_steps": 0,
    "trainer.callbacks.init_args.update_starting_at_epoch": 0,
}
LAST = Path("runs/c_sft/checkpoints/last.ckpt")


def test_rounds_are_averaged_in_a_run_that_continues_as_if_uninterrupted(
    janus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert improve(janus_folder, "c_sft", {**AVERAGE, "checkpoint.keep_epochs": "true"}) == 0
    ends = [torch.load(LAST.with_name(f"epoch-000{epoch}.ckpt"), weights_only=True) for epoch in (1, 2)]
    first, second = (end["current_model_state"] for end in ends)
    averaged = state(LAST)
    assert averaged.keys() == first.keys() and not same(first, second)
    for name, tensor in averaged.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2, msg=name)
    assert not same(averaged, second)
    monkeypatch.chdir(tmp_path / "parts")
    assert improve(janus_folder, "c_sft", {**AVERAGE, "trainer.max_epochs": 1}) == 0
    assert improve(janus_folder, "c_sft", {**AVERAGE, "ckpt_path": LAST}) == 0
    assert same(state(LAST), averaged)
