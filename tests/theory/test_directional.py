"""Predicted changes along a direction: forward, reverse and the gradients themselves agree."""

from __future__ import annotations

import pytest
import torch
from small_nets import SmallLM, looped_gradients, small_batches

import theory


@pytest.mark.parametrize("method", ["jvp", "reverse"])
@pytest.mark.parametrize("tied", [False, True])
def test_directions_are_gradients_contracted(method: str, tied: bool) -> None:
    model = SmallLM(seed=1, tied=tied, rank=2)
    sources = small_batches(model, 3, 4)
    delta = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    rows = looped_gradients(model, sources)
    flat = torch.cat([change.flatten() for change in delta.values()])
    torch.testing.assert_close(theory.directional(model, sources, delta, method), rows @ flat, rtol=1e-10, atol=1e-10)
    part = {name: delta[name] for name in ("up.weight", "mixers.0.q.lora_B.weight")}
    rows = looped_gradients(model, sources, list(part))
    flat = torch.cat([delta[name].flatten() for name in dict(model.named_parameters()) if name in part])
    torch.testing.assert_close(theory.directional(model, sources, part, method), rows @ flat, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["jvp", "reverse"])
def test_derivatives_can_be_taken_elsewhere(method: str) -> None:
    model, moved = SmallLM(seed=2), SmallLM(seed=2)
    sources = small_batches(model, 3, 4)
    with torch.no_grad():
        for p in moved.parameters():
            p += 0.1 * torch.randn_like(p)
    delta = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    there = dict(moved.named_parameters())
    torch.testing.assert_close(
        theory.directional(model, sources, delta, method, at=there), theory.directional(moved, sources, delta, method)
    )


def test_the_prediction_is_first_order_exact() -> None:
    model = SmallLM(seed=3)
    sources = small_batches(model, 4, 4)
    delta = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    slope = theory.directional(model, sources, delta)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}

    def values(step: float) -> torch.Tensor:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(start[name] + step * delta[name])
            return torch.cat([fn(model, batch) for fn, batch in sources])

    torch.testing.assert_close((values(1e-6) - values(-1e-6)) / 2e-6, slope, rtol=1e-6, atol=1e-6)


def test_bad_directions_are_named() -> None:
    model = SmallLM(seed=4)
    sources = small_batches(model, 2, 2)
    for delta, message in (
        ({}, "delta is empty"),
        ({"up.wait": torch.zeros(1)}, "delta names 'up.wait'"),
        ({"up.weight": torch.zeros(1)}, r"delta of up.weight has shape \(1,\); it needs"),
    ):
        with pytest.raises(ValueError, match=message):
            theory.directional(model, sources, delta)
    with pytest.raises(ValueError, match="unknown method 'forward'; available: jvp, reverse"):
        theory.directional(model, sources, {"up.bias": torch.zeros_like(model.up.bias)}, "forward")
