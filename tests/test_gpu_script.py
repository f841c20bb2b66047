"""The measurements for a GPU run on a CPU too, with the small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import floor, gpu


def test_every_figure_is_measured_and_written(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["parity, float32"]["token_max"] < 1e-4
    assert found["parity, float32"]["token_max"] < found["parity, bfloat16"]["token_max"] < 0.1
    assert found["DPO step, 7B, LoRA 32"]["images_per_second"] > 0
    assert found["SFT step, 7B, LoRA 32"]["trained_parameters"] < found["SFT step, 1B, in full"]["trained_parameters"]


def test_a_failed_figure_is_named_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> gpu.Figures:
        raise RuntimeError("no room")

    monkeypatch.setattr(gpu, "tasks", lambda machine: iter([("first", broken), ("second", lambda: {"images": 3})]))
    out = tmp_path / "figures.json"
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["first"]["error"] == "RuntimeError: no room" and found["second"]["images"] == 3


def test_the_floor_is_below_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    floor.main(["--layers", "1", "--image_tokens", "16", "--narrow", "--rows", "2", "--dtypes", "float32"])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in cells] == [[what, "float32", "2"] for what in ("sampling", "choosing", "judging", "dpo")]
    for what, _, _, ours, alone, _, theirs in cells:
        assert float(ours) > 0 and (what == "choosing") == (alone == "")
        assert not alone or 0 < float(alone) < float(ours)
        assert bool(theirs) == (what == "sampling")


def test_the_products_are_those_that_a_gradient_takes() -> None:
    layer, head = torch.nn.Linear(3, 5), torch.nn.Linear(5, 2).requires_grad_(False)
    found = floor.products_of(lambda: head(layer(torch.ones(4, 7, 3))))
    assert [(product.rows, tuple(product.weight.shape)) for product in found] == [(28, (5, 3)), (28, (2, 5))]
    with FlopCounterMode(display=False) as counted:
        floor.products_alone(found, backward=True)()
    # forward and gradient of the input for both, and the gradient of the weight that trains
    assert counted.get_total_flops() == 2 * 28 * (3 * 3 * 5 + 2 * 2 * 5)
