"""Averaged weights in a self-improvement run: what is kept, and that such a run continues bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from small_runs import FICKLE, improve, same, state
from torch import Tensor, nn
from torch.utils.data import DataLoader

from unigap.callbacks import WeightEMA

AVERAGE = {
    **FICKLE,
    "model.init_args.schedule.every_n_epochs": 1,
    "trainer.callbacks+": "unigap.callbacks.WeightEMA",
    "trainer.callbacks.init_args.decay": 0.5,
    "trainer.callbacks.init_args.each": "epoch",
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


class HalfFrozen(LightningModule):
    """One weight that trains beside frozen ones in bfloat16 and positions, as an adapter has them."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Parameter(torch.randn(1000, dtype=torch.bfloat16), requires_grad=False)
        self.register_buffer("position", torch.arange(576))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.trained - batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.trained], lr=0.5)


def test_what_does_not_train_keeps_every_bit_in_an_average(tmp_path: Path) -> None:
    module = HalfFrozen()
    frozen, position = module.frozen.clone(), module.position.clone()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, callbacks=WeightEMA(decay=0.9), default_root_dir=tmp_path, **options)
    trainer.fit(module, DataLoader(torch.tensor([1.0, 3.0, 5.0]), batch_size=1))
    # the first step starts the average: 1, then .9 x 1 + .1 x 3, then .9 x 1.2 + .1 x 5
    assert module.trained.item() == pytest.approx(1.58)
    assert torch.equal(module.frozen, frozen) and torch.equal(module.position, position)


def test_a_decay_that_keeps_nothing_new_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5.*\[0, 1\)"):
        WeightEMA(decay=1.5)
