"""Token-level kernels against the full V x V kernel and against the sequences' kernel."""

from __future__ import annotations

import pytest
import torch
from small_nets import SmallLM, small_batches, text_logp
from torch import Tensor

import theory

TRUNK = theory.Selection(exclude=("head.*", "yes.*"))


def hidden(model: SmallLM, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["ids"], batch["ids"] != SmallLM.pad)


def one_each(model: SmallLM) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    (_, texts), (_, questions) = small_batches(model, 2, 2, seed=3)
    return {"ids": texts["ids"][:1]}, {"ids": questions["ids"][:1]}


def full_kernel(model: SmallLM, a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """D logits_a / d theta times d logits_b / d theta transposed, formed in full: (K V, R W)."""
    params = list(theory.select_parameters(model, TRUNK).values())

    def rows(values: Tensor) -> Tensor:
        grads = [torch.autograd.grad(v, params, retain_graph=True, allow_unused=True) for v in values.flatten()]
        return torch.stack(
            [
                torch.cat(
                    [
                        torch.zeros_like(p).flatten() if g is None else g.flatten()
                        for g, p in zip(row, params, strict=True)
                    ]
                )
                for row in grads
            ]
        )

    return rows(model.yes(hidden(model, a))) @ rows(model.head(hidden(model, b))).T


def test_the_kernel_across_heads_is_the_full_one() -> None:
    model = SmallLM(seed=1)
    a, b = one_each(model)
    kernel = theory.TokenKernel(
        model.yes.weight.detach(),
        theory.trunk_kernel(model, (hidden, a), (hidden, b), TRUNK),
        model.head.weight.detach(),
    )
    full = full_kernel(model, a, b)
    positions, words = a["ids"].shape[1], model.vocabulary
    shaped = full.view(positions, 2, -1, words)
    entries = kernel.between(2, 1, torch.arange(2), torch.arange(words))
    torch.testing.assert_close(entries, shaped[2, :, 1], rtol=1e-10, atol=1e-10)
    exact = torch.linalg.svdvals(full)
    kept = kernel.singular_values()
    torch.testing.assert_close(kept[: len(exact)], exact[: len(kept)], rtol=1e-8, atol=1e-8)
    share = exact / exact.sum()
    assert abs(kernel.effective_rank() - float(torch.special.entr(share).sum().exp())) < 1e-6
    with pytest.raises(ValueError, match="use singular_values"):
        kernel.eigenvalues()


def test_one_head_with_itself_has_eigenvalues() -> None:
    model = SmallLM(seed=2)
    a, _ = one_each(model)
    middle = theory.trunk_kernel(model, (hidden, a), (hidden, a), TRUNK)
    kernel = theory.TokenKernel(model.yes.weight.detach(), middle, model.yes.weight.detach())
    values = kernel.eigenvalues()
    whole = torch.einsum("vd,krde,we->kvrw", model.yes.weight, middle, model.yes.weight).flatten(2).flatten(0, 1)
    exact = torch.linalg.eigvalsh(whole.detach()).flip(0)
    torch.testing.assert_close(values[: len(exact)], exact[: len(values)].clamp_min(0), rtol=1e-8, atol=1e-8)


def test_influences_sum_to_the_sequences_kernel() -> None:
    model = SmallLM(seed=3)
    a, b = ({"ids": batch["ids"].clamp_min(1)} for batch in one_each(model))

    def token_logps(model: SmallLM, batch: dict[str, Tensor]) -> Tensor:
        ids = batch["ids"]
        return model.head(hidden(model, batch)[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)

    def residual(batch: dict[str, Tensor]) -> Tensor:
        logits = model.head(hidden(model, batch)[:, :-1])[0]
        return (torch.eye(model.vocabulary).double()[batch["ids"][0, 1:]] - logits.softmax(-1)).detach()

    exact = theory.token_gram(model, (token_logps, a), (token_logps, b), TRUNK)
    middle = theory.trunk_kernel(model, (hidden, a), (hidden, b), TRUNK, slice(0, -1), slice(0, -1))
    head = model.head.weight.detach()
    influence = theory.TokenKernel(head, middle, head).influence(residual(a), residual(b))
    torch.testing.assert_close(influence, exact, rtol=1e-10, atol=1e-10)
    whole = theory.gram(model, [(text_logp, a), (text_logp, b)], TRUNK).gu
    torch.testing.assert_close(exact.sum(), whole.squeeze(), rtol=1e-10, atol=1e-10)


def test_bad_sides_are_named() -> None:
    model = SmallLM(seed=4)
    a, b = one_each(model)
    with pytest.raises(ValueError, match="the batch holds 2, pass one"):
        theory.trunk_kernel(model, (hidden, {"ids": torch.ones(2, 4, dtype=torch.long)}), (hidden, b), TRUNK)
    with pytest.raises(ValueError, match=r"returned shape .* needs \(1, T\)"):
        theory.token_gram(model, (hidden, a), (hidden, b), TRUNK)
    with pytest.raises(ValueError, match=r"need \(V, D\), \(W, D\) and \(K, R, D, D\)"):
        theory.TokenKernel(torch.zeros(3, 4), torch.zeros(2, 2, 4, 4), torch.zeros(3, 5))
