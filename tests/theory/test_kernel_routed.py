"""Layers that see a routed or packed subset of the tokens: right, or refused on the batch at hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_nets import looped_gradients
from torch import Tensor, nn

import theory

HOOKED = ("auto", "hooks", "ghost")
WORDS, WIDTH = 10, 8


class Routed(nn.Module):
    """A mixture of two experts, each fed the tokens routed to it and no others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.router = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 2)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, WORDS)
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        flat = x.reshape(-1, WIDTH)
        shares = self.router(flat).softmax(-1)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows = (shares.argmax(-1) == number).nonzero().flatten()
            mixed = mixed.index_add(0, rows, expert(flat[rows]) * shares[rows, number, None])
        return self.head(x + mixed.view_as(x))


class Packed(Routed):
    """Sequences without their padding go through a layer one behind the other."""

    def forward(self, ids: Tensor) -> Tensor:
        x, seen = self.tokens(ids), ids > 0
        mixed = torch.zeros_like(x)
        mixed[seen] = self.experts[0](x[seen]).tanh()
        return self.head(x + mixed)


def logp(model: nn.Module, ids: Tensor) -> Tensor:
    token_logps = model(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (token_logps * (ids[:, :-1] > 0)).sum(1)


def batch(seed: int, n: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, WORDS, (n, 6), generator=draw)
    return ids.masked_fill(torch.arange(6)[None] >= torch.randint(3, 7, (n, 1), generator=draw), 0)


@pytest.mark.parametrize("make", [Routed, Packed])
def test_kernels_of_routed_and_packed_tokens_are_right_or_refused(make: Callable[[], Routed]) -> None:
    """Row totals that are a multiple of n by chance passed the check of the first and last sample."""
    model, refused = make(), 0
    theory.gram(model, [(logp, batch(0)[:1])])  # a single sample is always right
    for seed in range(40):
        try:
            found = theory.gram(model, [(logp, batch(seed))]).K
        except ValueError as error:
            assert "loop" in str(error), error
            refused += 1
            continue
        rows = looped_gradients(model, [(logp, batch(seed))])
        torch.testing.assert_close(found, rows @ rows.T, rtol=1e-6, atol=1e-6)
    assert refused >= 20, "the trap would be harmless"


@pytest.mark.parametrize("method", HOOKED)
def test_a_later_batch_is_checked_like_the_first(method: str) -> None:
    """Four tokens of two samples, three of one and one of the other: two rows for each, by their number."""
    model = Packed()
    even, uneven = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 2, 3, 7], [4, 0, 0, 0]])
    theory.gram(model, [(logp, even)], method=method)
    for door in (
        lambda: theory.gram(model, [(logp, uneven)], method=method),
        lambda: theory.features(model, [(logp, uneven)], method=method),
        lambda: theory.cross_gram(model, (logp, even), (logp, uneven), method=method),
        lambda: theory.cross_gram(model, (logp, uneven), (logp, even), method=method),
    ):
        with pytest.raises(ValueError, match=r"self-check: .*experts.0.* off by .* routed .* method=.loop."):
            door()


def test_every_block_of_a_large_kernel_is_checked() -> None:
    model = Packed()
    even, uneven = torch.tensor([[1, 2, 3, 7]] * 4), torch.tensor([[1, 2, 3, 7], [4, 0, 0, 0]])
    theory.cross_gram(model, (logp, even), (logp, even), block=2)
    mixed = torch.cat([even[:2], uneven])
    for rows, columns in ((mixed, even), (even, mixed)):
        with pytest.raises(ValueError, match=r"self-check: .*experts.0.* routed"):
            theory.cross_gram(model, (logp, rows), (logp, columns), block=2)


def test_the_reverse_direction_is_checked_too() -> None:
    model = Packed()
    delta = {name: torch.ones_like(p) for name, p in model.named_parameters() if name.startswith("experts.0")}
    theory.directional(model, [(logp, torch.tensor([[1, 2, 3], [4, 5, 6]]))], delta, "reverse")
    uneven = [(logp, torch.tensor([[1, 2, 3, 7], [4, 0, 0, 0]]))]
    for at in (None, dict(model.named_parameters())):
        with pytest.raises(ValueError, match=r"self-check: .*experts.0.* routed"):
            theory.directional(model, uneven, delta, "reverse", at=at)


@pytest.mark.parametrize("make", [Routed, Packed])
def test_the_loop_takes_what_hooks_and_vmap_refuse(make: Callable[[], Routed]) -> None:
    model, sources = make(), [(logp, batch(1)), (logp, batch(2, 4))]
    rows = looped_gradients(model, sources)
    torch.testing.assert_close(theory.gram(model, sources, method="loop").K, rows @ rows.T, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match=r"under vmap .* method=.hooks., or .loop."):
        theory.gram(model, sources, method="func")


def test_an_expert_that_sees_one_token_is_named() -> None:
    model = Routed()
    with torch.no_grad():
        model.router.weight.zero_()
        model.router.bias.copy_(torch.tensor([0.0, 1.0]))
        model.router.weight[0] = 99 * model.tokens.weight[9] / model.tokens.weight[9].square().sum()
        model.router.weight[1] = -model.router.weight[0]
    ids = torch.tensor([[1, 9, 3], [4, 5, 6], [7, 8, 2]])
    assert (model.router(model.tokens(ids[:, :-1])).argmax(-1) == 0).sum() >= 1
    alone = next(word for word in range(1, 9) if model.router(model.tokens.weight[word]).argmax() == 1)
    ids = torch.where(ids == 9, 9, alone)
    with pytest.raises(ValueError, match=r"layer experts.0 saw one row for all samples, .* routed or packed, .*loop"):
        theory.gram(model, [(logp, ids)], check=False)


def test_an_expert_that_sees_no_token_has_no_gradient() -> None:
    model = Routed()
    with torch.no_grad():
        model.router.bias.copy_(torch.tensor([-99.0, 99.0]))
    sources = [(logp, torch.randint(1, WORDS, (3, 5), generator=torch.Generator().manual_seed(0)))]
    rows = looped_gradients(model, sources)
    for method in HOOKED:
        torch.testing.assert_close(theory.gram(model, sources, method=method).K, rows @ rows.T, rtol=1e-10, atol=1e-10)


def test_rows_counted_twice_are_refused() -> None:
    """A row that all samples share gets one copy a sample, which a sum over rows counts as often."""

    class Summed(Routed):
        def forward(self, ids: Tensor) -> Tensor:
            shared = self.experts[0](torch.ones(1, WIDTH, dtype=torch.float64)).tanh()
            return self.head(self.tokens(ids) + (shared.sum(0) if len(ids) > 2 else shared))

    model = Summed()
    theory.gram(model, [(logp, torch.full((2, 3), 2))])
    with pytest.raises(ValueError, match=r"log-likelihood of sample 0 of source 0 is .* by method .*loop"):
        theory.gram(model, [(logp, torch.full((4, 3), 2))])
