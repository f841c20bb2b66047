"""A probe around real optimizer steps."""

from __future__ import annotations

import copy

import pytest
import torch
from small_nets import SmallLM, small_batches

import theory
from theory.optimizer_parts import StepParts

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9, dampening=0.3, weight_decay=0.2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.8, nesterov=True, weight_decay=0.1, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-5, weight_decay=0.3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-5, weight_decay=2.0),
    "adamw-maximize": lambda p: torch.optim.AdamW(p, lr=1e-5, weight_decay=2.0, maximize=True, amsgrad=True),
}
OTHERS = {
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-5),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-5),
}


def backward(model: SmallLM, sources: list) -> None:
    model.zero_grad()
    (-sources[0][0](model, sources[0][1]).mean()).backward()


@pytest.mark.parametrize("method", ["jvp", "reverse"])
@pytest.mark.parametrize("name", [*OPTIMIZERS, *OTHERS])
def test_prediction_matches_measurement_and_parts_add_up(name: str, method: str) -> None:
    model = SmallLM(seed=1)
    train, probes = small_batches(model, 6, 4), small_batches(model, 4, 5, seed=9)
    optimizer = (OPTIMIZERS | OTHERS)[name](model.parameters())
    probe = theory.StepProbe(model, optimizer, probes, method=method)
    for _ in range(3):
        backward(model, train)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        probe.before()
        optimizer.step()
        report = probe.after()
    fit = report.fit()
    assert fit.r2 > 0.999 and abs(fit.slope - 1) < 0.01, fit
    assert report.of(1).sizes == (5,) and torch.equal(report.of(1).measured, report.measured[4:])
    if name in OTHERS:
        assert report.parts == {}
        return
    assert set(report.parts) == {"gradient", "momentum", "weight_decay"}
    torch.testing.assert_close(sum(report.parts.values()), report.predicted, rtol=1e-8, atol=1e-12)
    assert (report.parts["weight_decay"] != 0).any() == (name != "sgd")
    assert (report.parts["momentum"] != 0).any() == (name != "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parts_are_the_step_parameter_by_parameter(name: str) -> None:
    model = SmallLM(seed=2)
    model.yes.requires_grad_(False)
    params = dict(model.named_parameters())
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(3):
        backward(model, small_batches(model, 4, 2))
        before = {k: p.detach().clone() for k, p in params.items()}
        split = StepParts(optimizer, params)
        optimizer.step()
        parts = split.parts()
        for k, p in params.items():
            step = p.detach() - before[k]
            torch.testing.assert_close(sum(part[k] for part in parts.values()), step, rtol=1e-9, atol=1e-14)


def test_the_gradient_part_is_this_batch_and_no_other() -> None:
    model = SmallLM(seed=3)
    train = small_batches(model, 4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.999), weight_decay=0.1)
    probe = theory.StepProbe(model, optimizer, train)
    backward(model, train)
    probe.before()
    optimizer.step()
    first = probe.after()
    assert (first.parts["momentum"] == 0).all(), "there is no momentum at the first step"
    optimizer.zero_grad(set_to_none=False)
    probe.before()
    optimizer.step()
    coasting = probe.after()
    assert coasting.step_norm["gradient"] < 1e-6 * coasting.step_norm["momentum"]


def test_probing_does_not_change_training() -> None:
    def trained(probed: bool) -> list[torch.Tensor]:
        model = SmallLM(seed=4)
        model.add_module("drop", torch.nn.Dropout(0.5))
        model.train()
        sources = small_batches(model, 4, 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(7)
        for _ in range(3):
            backward(model, sources)
            for p in model.parameters():
                if p.grad is not None:
                    p.grad.add_(torch.randn_like(p))
            if probed:
                probe = theory.StepProbe(model, optimizer, sources)
                probe.before()
            optimizer.step()
            if probed:
                probe.after()
                assert model.training and model.drop.training
        return [*model.parameters(), torch.rand(3)]

    for plain, watched in zip(trained(False), trained(True), strict=True):
        assert torch.equal(plain, watched)


def test_misuse_is_named() -> None:
    model = SmallLM(seed=5)
    sources = small_batches(model, 2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"after\(\) without before\(\)"):
        theory.StepProbe(model, optimizer, sources).after()
    with pytest.raises(ValueError, match="steps none of the selected"):
        theory.StepProbe(copy.deepcopy(model), optimizer, sources)
    half = copy.deepcopy(model).bfloat16()
    with pytest.warns(theory.LowPrecisionWarning, match="float32 master weights"):
        theory.StepProbe(half, torch.optim.SGD(half.parameters(), lr=0.1), sources)
