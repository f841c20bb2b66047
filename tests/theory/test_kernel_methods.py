"""All methods against one backward pass a sample, in float64, on random architectures."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_nets import SmallLM, looped_gradients, small_batches, text_logp
from torch import Tensor, nn

import theory

METHODS = ("auto", "hooks", "ghost", "func")
ARCHITECTURES = list(itertools.product((False, True), (False, True), (0, 2)))


@pytest.mark.parametrize(("tied", "reused", "rank"), ARCHITECTURES)
def test_all_methods_agree_with_single_backward_passes(tied: bool, reused: bool, rank: int) -> None:
    model = SmallLM(seed=17 * tied + 5 * reused + rank, tied=tied, reused=reused, rank=rank)
    sources = small_batches(model, 4, 3)
    rows = looped_gradients(model, sources)
    for method in METHODS:
        result = theory.gram(model, sources, method=method)
        torch.testing.assert_close(result.K, rows @ rows.T, rtol=1e-10, atol=1e-10, msg=lambda m, w=method: f"{w}: {m}")
        values = torch.cat([fn(model, batch) for fn, batch in sources]).detach()
        torch.testing.assert_close(result.values, values)
        torch.testing.assert_close(result.K, result.K.T, rtol=0, atol=1e-12)


def test_a_computation_leaves_the_model_as_it_was() -> None:
    model = SmallLM(seed=1, rank=2)
    model.up.weight.requires_grad_(False)
    before = {k: (p.detach().clone(), p.requires_grad) for k, p in model.named_parameters()}
    for method in METHODS:
        theory.gram(model, small_batches(model, 2, 2), select="*", method=method)
    assert all(p.grad is None and p.requires_grad == before[k][1] for k, p in model.named_parameters())
    assert all(torch.equal(p, before[k][0]) for k, p in model.named_parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_selection_restricts_the_kernel(method: str) -> None:
    model = SmallLM(seed=2, rank=2)
    sources = small_batches(model, 3, 3)
    for select in (theory.LORA, "mixers.1.*", ["up.*", "down.bias"], theory.trunk_only(model, model.mixers)):
        names = list(theory.select_parameters(model, select))
        rows = looped_gradients(model, sources, names)
        torch.testing.assert_close(theory.gram(model, sources, select, method).K, rows @ rows.T, rtol=1e-10, atol=1e-10)


def test_selection_knows_frozen_tied_and_unknown_parameters() -> None:
    model = SmallLM(seed=3, tied=True)
    assert list(theory.select_parameters(model, "head.weight")) == ["tokens.weight"]
    assert "tokens.weight" not in theory.select_parameters(model, theory.Selection(exclude=("head.*",)))
    model.up.requires_grad_(False)
    assert "up.weight" not in theory.select_parameters(model)
    assert "up.weight" in theory.select_parameters(model, "up.*")
    with pytest.raises(ValueError, match=r"no parameter matches include=.*mixer.q.weight.*such as mixers...q.weight"):
        theory.select_parameters(model, "mixer.q.weight")
    with pytest.raises(ValueError, match="unfreeze some"):
        theory.select_parameters(model.requires_grad_(False))
    with pytest.raises(ValueError, match="no submodule"):
        theory.trunk_only(model, nn.Linear(2, 2))


@pytest.mark.parametrize("method", METHODS)
def test_cross_gram_does_not_depend_on_the_block(method: str) -> None:
    model = SmallLM(seed=4)
    texts, questions = small_batches(model, 5, 7)
    whole = theory.gram(model, [texts, questions]).gu
    for block in (1, 3, 64):
        crossed = theory.cross_gram(model, texts, questions, method=method, block=block)
        torch.testing.assert_close(crossed, whole, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="block must be >= 1"):
        theory.cross_gram(model, texts, questions, block=0)


class Convolution(nn.Module):
    """Layers without a rule of their own, fed flattened samples, and an output nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 3, 3), nn.GroupNorm(3, 3)
        self.head, self.idle = nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.convolution(x)).flatten(2).transpose(1, 2).reshape(-1, 3)
        self.idle(hidden)
        return self.head(hidden).view(len(x), -1, 2).log_softmax(-1)[..., 0].sum(1)


def test_other_layers_and_flattened_samples() -> None:
    torch.manual_seed(0)
    model = Convolution().double()
    sources = [(lambda model, x: model(x), torch.randn(5, 2, 6, 5, dtype=torch.float64))]
    rows = looped_gradients(model, sources)
    for method in METHODS:
        torch.testing.assert_close(theory.gram(model, sources, method=method).K, rows @ rows.T, rtol=1e-10, atol=1e-10)


def test_float32_kernel_in_float64_products() -> None:
    model = SmallLM(seed=5)
    sources = small_batches(model, 3, 3)
    exact = theory.gram(model, sources).K
    model.float()
    assert theory.gram(model, sources).K.dtype == torch.float32
    wide = theory.gram(model, sources, dtype=torch.float64)
    assert wide.K.dtype == torch.float64
    torch.testing.assert_close(wide.K, exact, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"needs torch.float32 or torch.float64"):
        theory.gram(model, sources, dtype=torch.bfloat16)


def test_one_source_and_one_sample() -> None:
    model = SmallLM(seed=6)
    (text, batch), _ = small_batches(model, 1, 1)
    rows = looped_gradients(model, [(text, batch)])
    for method in METHODS:
        torch.testing.assert_close(theory.gram(model, [(text, batch)], method=method).K, rows @ rows.T)
    with pytest.raises(ValueError, match=r"block .0, 1. asked of a Gram with 1 source"):
        theory.gram(model, [(text_logp, batch)]).gu  # noqa: B018
