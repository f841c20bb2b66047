"""Gradients as features, the sketch that warns, and the memory they do not take."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from small_nets import SmallLM, looped_gradients, small_batches

import theory


@pytest.mark.parametrize("method", ["auto", "func"])
def test_whole_features_are_the_gradients(method: str) -> None:
    model = SmallLM(seed=1, tied=True)
    sources = small_batches(model, 3, 2)
    result = theory.features(model, sources, method=method)
    torch.testing.assert_close(result.rows, looped_gradients(model, sources), rtol=1e-10, atol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(result.gram().K, theory.gram(model, sources).K)
        torch.testing.assert_close(result.cosines(0, 1), theory.gram(model, sources).cosines()[:3, 3:])


def test_a_sketch_keeps_inner_products_on_average() -> None:
    model = SmallLM(seed=2)
    sources = small_batches(model, 4, 4)
    exact = theory.gram(model, sources).K
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", theory.SketchNoiseWarning)
        drawn = torch.stack([theory.features(model, sources, sketch=64, seed=s).gram().K for s in range(60)])
    error = (drawn.mean(0) - exact).norm() / exact.norm()
    assert error < 0.1 and (drawn[0] - exact).norm() > 2 * (drawn.mean(0) - exact).norm()
    again = theory.features(model, sources, sketch=64, seed=3).rows
    assert torch.equal(again, theory.features(model, sources, sketch=64, seed=3).rows)


def test_a_sketch_warns_where_it_drowns_the_cosines() -> None:
    model = SmallLM(seed=3)
    sources = small_batches(model, 4, 4)
    sketched = theory.features(model, sources, sketch=16)
    with pytest.warns(theory.SketchNoiseWarning, match=r"sources 0 and 1 have mean size .* width 16; use gram"):
        sketched.cosines(0, 1)
    with pytest.warns(theory.SketchNoiseWarning):
        sketched.gram()
    same = [sources[0], sources[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aligned = theory.features(model, [(fn, {"ids": b["ids"][:1]}) for fn, b in same], sketch=64).cosines(0, 1)
    torch.testing.assert_close(aligned, torch.ones_like(aligned))
    with pytest.raises(ValueError, match="sketch must be >= 1"):
        theory.features(model, sources, sketch=0)


MEMORY = """
import torch
from pathlib import Path
from torch import nn
import theory
torch.manual_seed(0)
model = nn.Sequential(*(nn.Linear(384, 384) for _ in range(16)))
x = torch.randn(48, 8, 384)
fn = lambda model, batch: model(batch).square().sum((1, 2))
theory.gram(model, [(fn, x[:2])])
model[0](x).sum().backward()
def memory(field):  # unlike ru_maxrss, not inherited from the process that starts this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024
start = memory("VmHWM")
theory.gram(model, [(fn, x[:24]), (fn, x[24:])], method="METHOD", check=False)
print(memory("VmHWM") - start)
"""


def test_streaming_holds_about_one_layer() -> None:
    def peak(method: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY.replace("METHOD", method)], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    every_gradient = 48 * 16 * 384 * 384 * 4 / 2**20
    one_layer = every_gradient / 16
    for method in ("hooks", "auto"):
        assert peak(method) < 2.5 * one_layer, method
    assert peak("func") > 0.9 * every_gradient, "the bound would hold for any method"
