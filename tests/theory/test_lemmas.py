"""The lemmas against real training steps: the error must fall as the square of the learning rate."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_nets import SmallLM, answer_logp, small_batches, text_logp
from torch import Tensor

import theory

ALTERNATIVES, BETA = 3, 0.3


def setup(seed: int) -> tuple[SmallLM, theory.Probes, theory.Source, theory.Source]:
    """A model, four probes with three prompts each, and chosen and rejected training samples."""
    model = SmallLM(seed)
    draw = torch.Generator().manual_seed(seed + 100)
    images = torch.randint(1, 9, (4, 4), generator=draw)
    prompts = torch.randint(1, 9, (4, ALTERNATIVES, 3), generator=draw)
    rows = torch.cat([prompts, images[:, None].expand(-1, ALTERNATIVES, -1)], -1).flatten(0, 1)
    questions = {"ids": images, "answer": torch.ones(4, dtype=torch.long)}
    probes = theory.Probes(text_logp, {"ids": rows}, ALTERNATIVES, (answer_logp, questions))
    (_, chosen), (_, rejected) = small_batches(model, 5, 1, seed)[0], small_batches(model, 5, 1, seed + 1)[0]
    return model, probes, (text_logp, chosen), (text_logp, rejected)


def stepped(model: SmallLM, loss: Callable[[SmallLM], Tensor], eta: float) -> SmallLM:
    after = copy.deepcopy(model)
    value = loss(after)
    grads = torch.autograd.grad(value, list(after.parameters()), allow_unused=True)
    with torch.no_grad():
        for p, grad in zip(after.parameters(), grads, strict=True):
            if grad is not None:
                p -= eta * grad
    return after


def reference_logps(source: theory.Source, model: SmallLM) -> Tensor:
    with torch.no_grad():
        return source[0](model, source[1])


def order(model: SmallLM, probes: theory.Probes, loss: Callable, predict: Callable, seed: int) -> dict[str, float]:
    draw = torch.Generator().manual_seed(seed)
    etas = 10 ** (-4 - 2 * torch.rand(6, generator=draw, dtype=torch.float64))
    before = theory.read(model, probes)
    errors: dict[str, list[float]] = {"generation": [], "bayes": [], "head": []}
    for eta in etas.tolist():
        measured = theory.read(stepped(model, loss, eta), probes).since(before)
        predicted = predict(eta)
        for name, error in errors.items():
            error.append(float((getattr(measured, name) - getattr(predicted, name)).norm()))
    return {name: theory.error_order(etas, torch.tensor(error)) for name, error in errors.items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_sft_errors_are_of_second_order(seed: int) -> None:
    model, probes, train, _ = setup(seed)
    orders = order(
        model,
        probes,
        lambda m: -train[0](m, train[1]).mean(),
        lambda eta: theory.predict_sft(model, probes, train, eta),
        seed,
    )
    assert all(1.9 <= value <= 2.1 for value in orders.values()), orders


@pytest.mark.parametrize("seed", [5, 6])
def test_policy_gradient_errors_are_of_second_order(seed: int) -> None:
    model, probes, train, _ = setup(seed)
    advantages = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orders = order(
        model,
        probes,
        lambda m: -(advantages * train[0](m, train[1])).mean(),
        lambda eta: theory.predict_policy(model, probes, train, advantages, eta),
        seed,
    )
    assert all(1.9 <= value <= 2.1 for value in orders.values()), orders


@pytest.mark.parametrize("seed", [3, 4])
def test_dpo_errors_are_of_second_order(seed: int) -> None:
    model, probes, chosen, rejected = setup(seed)
    reference = SmallLM(seed)
    with torch.no_grad():
        for p in reference.parameters():
            p += 0.05 * torch.randn_like(p)
    held = [reference_logps(source, reference) for source in (chosen, rejected)]

    def margins(policy: SmallLM) -> Tensor:
        return theory.dpo_margins(chosen[0](policy, chosen[1]), rejected[0](policy, rejected[1]), *held, BETA)

    start = margins(model).detach()
    assert start.std() > 0.01, "margins must differ for sigma(-alpha) to matter"
    orders = order(
        model,
        probes,
        lambda m: theory.dpo_loss(margins(m)),
        lambda eta: theory.predict_dpo(model, probes, chosen, rejected, start, BETA, eta),
        seed,
    )
    assert all(1.9 <= value <= 2.1 for value in orders.values()), orders


def test_small_steps_fit_with_slope_one() -> None:
    model, probes, train, _ = setup(5)
    before = theory.read(model, probes)
    after = stepped(model, lambda m: -train[0](m, train[1]).mean(), 1e-5)
    measured, predicted = theory.read(after, probes).since(before), theory.predict_sft(model, probes, train, 1e-5)
    for name in ("generation", "bayes", "head"):
        result = theory.fit(getattr(predicted, name), getattr(measured, name))
        assert abs(result.slope - 1) < 1e-3 and result.r2 > 0.999999 and result.correlation > 0.999999, name
    assert not torch.allclose(predicted.bayes, predicted.head, rtol=0.1), "Bayes and head are different quantities"


def test_lemma_two_is_the_derivative_of_the_bayes_posterior() -> None:
    kernel, logps = torch.randn(3, 4, 5).double(), torch.randn(3, 4).double()
    weights = torch.rand(5).double()

    def moved(eta: Tensor) -> Tensor:
        return theory.bayes_logp(logps + eta * kernel @ weights)

    slope = torch.func.jacrev(moved)(torch.zeros(()).double())
    predicted = theory.sft_understanding(kernel, theory.posterior(logps), 1.0, weights)
    torch.testing.assert_close(predicted, slope)
    same = theory.dpo_understanding(
        kernel, 0 * kernel, torch.zeros(5).double(), theory.posterior(logps), 2.0, 1.0, weights
    )
    torch.testing.assert_close(same, slope)  # beta sigma(0) = 1


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"weights have shape \(2,\) for 3 training samples"):
        theory.sft_generation(torch.zeros(4, 3), 0.1, torch.zeros(2))
    with pytest.raises(ValueError, match=r"at least one other prompt"):
        theory.posterior(torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"does not fit a posterior of shape \(4, 3\)"):
        theory.sft_understanding(torch.zeros(4, 2, 5), torch.zeros(4, 3), 0.1)
    with pytest.raises(ValueError, match=r"7 alternatives do not make 2 prompts for each of 3 probes"):
        theory.Probes(text_logp, torch.zeros(7), 2, (answer_logp, torch.zeros(3)))
    with pytest.raises(ValueError, match="step sizes and errors must be positive"):
        theory.error_order(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="fit needs two vectors"):
        theory.fit(torch.zeros(1), torch.zeros(1))
