"""The silent traps, each of which must be refused, and bad input, which must be named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import theory

HOOKED = ("auto", "hooks", "ghost")


class Net(nn.Module):
    """Two layers, used as a function of the test's choosing."""

    def __init__(self, use: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.drop, self.use = nn.BatchNorm1d(4), nn.Dropout(0.5), use
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x).log_softmax(-1)[..., 0]


def score(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def sources(n: int = 5, logp_fn: theory.LogpFn = score) -> list:
    return [(logp_fn, torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))]


def functional_use(net: Net, x: Tensor) -> Tensor:
    return F.linear(net.second(x).tanh(), net.first.weight) + net.first(x)


def tied_by_function(net: Net, x: Tensor) -> Tensor:
    return net.first(x).tanh() @ net.first.weight


def in_place_input(net: Net, x: Tensor) -> Tensor:
    hidden = net.first(x)
    out = net.second(hidden)
    hidden.mul_(2.0)
    return out + hidden


def in_place_output(net: Net, x: Tensor) -> Tensor:
    hidden = net.first(x)
    hidden.mul_(2.0).tanh_()
    return net.second(hidden).add_(hidden)


def batch_mean(net: Net, x: Tensor) -> Tensor:
    return net.second(net.first(x) - x.mean(0))


def other_axis(net: Net, x: Tensor) -> Tensor:
    steps = torch.stack([x, 2 * x, x.cos()])  # positions first, samples second
    return net.second(net.first(steps).tanh()).sum(0)


@pytest.mark.parametrize("method", HOOKED)
@pytest.mark.parametrize("use", [functional_use, tied_by_function])
def test_functional_use_of_a_weight_is_refused(use: Callable[[Net, Tensor], Tensor], method: str) -> None:
    with pytest.raises(ValueError, match=r"self-check: .* first.weight .* use method=.func."):
        theory.gram(Net(use), sources(), method=method)
    net = Net(use)
    unchecked, exact = (theory.gram(net, sources(), method=m, check=False).K for m in (method, "func"))
    assert (unchecked - exact).norm() > 1e-2 * exact.norm(), "the trap would be harmless"


@pytest.mark.parametrize("method", HOOKED)
def test_an_input_changed_in_place_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"input of layer second was changed in place"):
        theory.gram(Net(in_place_input), sources(), method=method, check=False)


def test_an_output_changed_in_place_is_followed() -> None:
    net = Net(in_place_output)
    kernels = [theory.gram(net, sources(), method=method).K for method in ("func", *HOOKED)]
    for kernel in kernels[1:]:
        torch.testing.assert_close(kernel, kernels[0], rtol=1e-10, atol=1e-10)


def test_a_weight_held_by_the_log_likelihood_is_refused() -> None:
    net = Net(lambda net, x: net.first(x))
    held = net.second.weight
    with pytest.raises(ValueError, match=r"second.weight by method 'func' .* read it from the model"):
        theory.gram(net, sources(logp_fn=lambda model, x: model(x) + (x @ held.T).sum(-1)), method="func")


@pytest.mark.parametrize("method", ("func", *HOOKED))
def test_samples_that_influence_one_another_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"sample of source 0 .* must not influence one another"):
        theory.gram(Net(batch_mean), sources(), method=method)


@pytest.mark.parametrize("method", ("func", *HOOKED))
def test_training_mode_of_batch_norm_and_dropout_is_refused(method: str) -> None:
    for use, layer in (
        (lambda net, x: net.norm(net.first(x)), "norm"),
        (lambda net, x: net.drop(net.first(x)), "drop"),
    ):
        net = Net(use)
        getattr(net, layer).train()
        with pytest.raises(ValueError, match=rf"layer {layer} .* training mode .* call model.eval\(\)"):
            theory.gram(net, sources(), method=method)
        theory.gram(net.eval(), sources(), method=method)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_samples_on_another_axis_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=r"equally many rows of each sample, side by side|self-check"):
        theory.gram(Net(other_axis), sources(n), method="hooks")
    theory.gram(Net(other_axis), sources(n), method="func")


def several_rows(net: Net, x: Tensor) -> Tensor:
    """Three versions of each sample go through the layers side by side, as where a likelihood is a mean over masks."""
    rows = torch.stack([x, 2 * x, x - 1], 1).flatten(0, 1)[:, None].expand(-1, 2, -1)
    return net.second(net.norm(net.first(rows).tanh()[:, 0])).view(len(x), 3, 4).mean(1)


def rows_apart(net: Net, x: Tensor) -> Tensor:
    """The same with all first versions before all second ones."""
    rows = torch.cat([x, 2 * x, x - 1])[:, None].expand(-1, 2, -1)
    return net.second(net.first(rows).tanh()[:, 0]).view(3, len(x), 4).mean(0)


@pytest.mark.parametrize("method", HOOKED)
def test_a_sample_may_have_several_rows_side_by_side(method: str) -> None:
    found, expected = (theory.gram(Net(several_rows), sources(), method=m).K for m in (method, "func"))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match=r"self-check: .* off by .* from autograd"):
        theory.gram(Net(rows_apart), sources(), method=method)


def test_gradient_checkpointing_is_refused() -> None:
    net = Net(lambda net, x: net.first(checkpoint(net.second, net.first(x), use_reentrant=False)))
    with pytest.raises(ValueError, match="turn gradient checkpointing off"):
        theory.gram(net, sources(), method="hooks", check=False)


def test_a_model_that_branches_on_data_is_refused_by_vmap_and_fine_for_hooks() -> None:
    net = Net(lambda net, x: net.second(net.first(x)) if bool((x < 9).all()) else x)
    with pytest.raises(ValueError, match=r"source 0 cannot be differentiated under vmap .* method=.hooks."):
        theory.gram(net, sources(), method="func")
    theory.gram(net, sources(), method="hooks")


def test_single_samples_are_checked_on_first_use_and_whole_batches_on_every_call() -> None:
    calls: list[int] = []

    def counted(model: nn.Module, x: Tensor) -> Tensor:
        calls.append(len(x))
        return model(x)

    net = Net(lambda net, x: net.second(net.first(x)))

    def used(**options: object) -> list[int]:
        calls.clear()
        theory.gram(net, sources(logp_fn=counted), **options)
        return list(calls)

    assert used() == [2, 1, 1, 2, 5, 5]
    assert used() == [5, 5]
    assert used(check=False) == [5]
    assert used(select="first.*") == [2, 1, 1, 2, 5, 5], "another selection is another check"


def test_the_report_names_every_parameter() -> None:
    net = Net(lambda net, x: net.second(net.first(x).tanh()))
    report = theory.self_check(net, sources(), select=["first.*", "second.*"])
    assert set(report.error) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert max(report.error.values()) < 1e-10 < report.tolerance


def one_row_missing() -> Tensor:
    rows = torch.ones(5, 4, dtype=torch.float64)
    rows[3, 1] = torch.nan
    return rows


BAD = {
    "non-finite": ([(score, one_row_missing())], r"log-likelihood of sample 3 of source 0 is nan"),
    "scalar": (sources(logp_fn=lambda model, x: model(x).sum()), r"returned shape \(\) for"),
    "tokens": (sources(logp_fn=lambda model, x: model.first(x)), r"returned shape \(\d, 4\) for"),
    "integers": (sources(logp_fn=lambda model, x: model(x).long()), r"returned a torch.int64 tensor"),
    "lists": (sources(logp_fn=lambda model, x: model(x).tolist()), r"returned list"),
    "no gradient": (sources(logp_fn=lambda model, x: model(x).detach()), r"no log-likelihood depends on a selected"),
    "no source": ([], r"no source given"),
    "no pair": ([score], r"source 0 is not a \(logp_fn, batch\) pair"),
    "no tensor": ([(score, ["words"])], r"the batch holds no tensor"),
    "no sample": ([(score, torch.zeros(0, 4))], r"the batch holds no sample"),
    "ragged": ([(score, {"a": torch.zeros(2, 4), "b": torch.zeros(3, 4)})], r"first dimensions \[2, 3\]"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("method", ("hooks", "func"))
def test_bad_input_is_named(case: str, method: str) -> None:
    given, message = BAD[case]
    net = Net(lambda net, x: net.second(net.first(x)))
    with pytest.raises(ValueError, match=message):
        theory.gram(net, given, method=method)


@pytest.mark.parametrize("method", ["hooks", "func"])
@pytest.mark.parametrize(
    ("row", "message"), [(0, r"first sample of source 0 is not finite at first"), (2, "sample 2 of")]
)
def test_a_gradient_that_is_not_finite_is_named(row: int, message: str, method: str) -> None:
    rows = torch.ones(5, 4, dtype=torch.float64)
    rows[row] = 0
    net = Net(lambda net, x: net.first(x))

    def root(model: Net, x: Tensor) -> Tensor:  # finite everywhere, with a slope that is not
        return (model.first(x) - model.first.bias.detach()).square().sum(1).sqrt()

    with pytest.raises(ValueError, match=message):
        theory.gram(net, [(root, rows)], method=method)


def test_a_layer_of_two_outputs_is_named() -> None:
    net = Net(lambda net, x: net.memory(x[:, None])[0][:, 0])
    net.memory = nn.GRU(4, 4, batch_first=True).double()
    with pytest.raises(ValueError, match="layer memory returns tuple"):
        theory.gram(net, sources(), method="hooks")


def test_unknown_methods_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'fast'; available: auto, hooks, ghost, func"):
        theory.gram(Net(lambda net, x: net.first(x)), sources(), method="fast")
    with pytest.raises(ValueError, match=r"no parameter matches"):
        theory.gram(Net(lambda net, x: net.first(x)), sources(), select="third.*")
