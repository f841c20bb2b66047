"""Kernels known in closed form."""

from __future__ import annotations

import pytest
import torch
from small_nets import Affine, TwoHeads, score_generation, score_understanding
from torch import Tensor, nn

import theory

METHODS = ("auto", "hooks", "ghost", "func")


def double_rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_model_has_kernel_x_x_plus_one(method: str) -> None:
    x = double_rand(9, 5)
    result = theory.gram(Affine(5), [(lambda model, batch: model(batch), x)], method=method)
    torch.testing.assert_close(result.K, x @ x.T + 1, rtol=0, atol=1e-12)
    assert result.K.dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_softmax_model_has_the_residual_kernel(method: str) -> None:
    x, y = double_rand(8, 4), torch.randint(6, (8,))
    model = nn.Linear(4, 6, bias=False, dtype=torch.float64)

    def logp(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0]).log_softmax(-1).gather(-1, batch[1][:, None]).squeeze(-1)

    result = theory.gram(model, [(logp, (x, y))], method=method)
    residual = torch.eye(6, dtype=torch.float64)[y] - model(x).softmax(-1).detach()
    torch.testing.assert_close(result.K, (x @ x.T) * (residual @ residual.T), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_two_heads_couple_through_the_trunk_alone(method: str) -> None:
    model, x, other = TwoHeads(5, 3), double_rand(6, 5), double_rand(4, 5)
    result = theory.gram(model, [(score_generation, x), (score_understanding, other)], method=method)
    heads = (model.generation.weight @ model.understanding.weight.T).detach()
    torch.testing.assert_close(result.gu, x @ other.T * heads, rtol=0, atol=1e-12)
    inner = (x @ model.trunk.weight.T @ model.trunk.weight @ x.T).detach()
    torch.testing.assert_close(result.gg, inner + x @ x.T * model.generation.weight.square().sum().detach())
    assert result.uu.shape == (4, 4)
    torch.testing.assert_close(result.block(1, 0), result.gu.T)


@pytest.mark.parametrize("method", METHODS)
def test_disjoint_trunks_do_not_couple(method: str) -> None:
    model = TwoHeads(5, 3, disjoint=True)
    result = theory.gram(
        model, [(score_generation, double_rand(6, 5)), (score_understanding, double_rand(4, 5))], method=method
    )
    assert (result.gu == 0).all()
    assert (result.gg.diagonal() > 0).all() and (result.uu.diagonal() > 0).all()


def test_parts_by_module_add_up_and_name_the_carrier() -> None:
    model, x = TwoHeads(5, 3), double_rand(6, 5)
    result = theory.gram(model, [(score_generation, x), (score_understanding, x)], per_module=True)
    assert set(result.parts) == {"trunk", "generation", "understanding"}
    torch.testing.assert_close(sum(result.parts.values()), result.K)
    torch.testing.assert_close(result.part("trunk").gu, result.gu)
    assert (result.part("generation").gu == 0).all()
    merged = result.regrouped(lambda name: "trunk" if name == "trunk" else "heads")
    assert set(merged.parts) == {"trunk", "heads"}
    with pytest.raises(ValueError, match="no part named 'head'; available: "):
        result.part("head")
