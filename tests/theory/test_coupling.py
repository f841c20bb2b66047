"""Coupling statistics beside their nulls, and the squeezing diagnostics."""

from __future__ import annotations

import pytest
import torch

import theory


def paired(shared: float, common: float = 0.0, n: int = 16, width: int = 400, seed: int = 0) -> theory.Gram:
    """Gradients of n pairs that share a part of their own and a part common to all."""
    draw = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    own, everyone = shared * noise(n, width), common * noise(1, width)
    rows = torch.cat([own + everyone + noise(n, width), own + everyone + noise(n, width)])
    return theory.Gram(rows @ rows.T, torch.zeros(2 * n), (n, n), "auto")


def test_pairs_that_share_are_found_and_sized() -> None:
    result = theory.alignment(paired(shared=1.0))
    assert abs(result.own_cosine.value - 0.5) < 0.05 and result.own_cosine.p_value == 1 / 501
    assert abs(result.coupling.value - 0.5) < 0.1 and result.coupling.p_value == 1 / 501
    assert abs(result.own_cosine.null_mean) < 0.05
    torch.testing.assert_close(theory.own_cosines(paired(1.0)).mean().item(), result.own_cosine.value)


def test_a_common_direction_is_no_coupling_of_pairs() -> None:
    result = theory.alignment(paired(shared=0.0, common=2.0))
    assert result.own_cosine.value > 0.7 and result.own_cosine.null_mean > 0.7 and result.own_cosine.p_value > 0.01
    assert abs(result.coupling.value) < 0.3 and result.coupling.p_value > 0.01


def test_independent_gradients_give_uniform_p_values() -> None:
    results = [theory.alignment(paired(0.0, seed=seed), permutations=99) for seed in range(20)]
    for name in ("own_cosine", "coupling", "sign_agreement", "spearman", "cka"):
        low = sum(getattr(result, name).p_value <= 0.2 for result in results)
        assert low <= 10, f"{name}: {low} of 20 under 0.2"


def test_changes_that_move_together_agree_in_sign_and_rank() -> None:
    draw = torch.Generator().manual_seed(3)
    rows = torch.randn(12, 6, generator=draw, dtype=torch.float64)
    both = torch.cat([rows, rows + 0.05 * torch.randn(12, 6, generator=draw, dtype=torch.float64)])
    result = theory.alignment(theory.Gram(both @ both.T, torch.zeros(24), (12, 12), "auto"))
    assert result.sign_agreement.value > 0.95 and result.sign_agreement.p_value < 0.01
    assert result.spearman.value > 0.95 and result.spearman.p_value < 0.01
    assert abs(result.sign_agreement.null_mean - 0.5) < 0.1


def test_cka_is_large_without_coupling() -> None:
    """Two heads with disjoint parameters, fed the same inputs: no coupling at all, yet a CKA near one."""
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(10, 5, generator=draw, dtype=torch.float64)
    zero = torch.zeros(10, 10, dtype=torch.float64)
    kernel = torch.cat([torch.cat([x @ x.T, zero], 1), torch.cat([zero, x @ x.T], 1)])
    result = theory.alignment(theory.Gram(kernel, torch.zeros(20), (10, 10), "auto"))
    assert result.cka.value > 0.99 and result.own_cosine.value == 0 and result.coupling.value == 0
    assert result.own_cosine.p_value == 1.0


def test_grams_that_cannot_be_paired_are_refused() -> None:
    good = paired(0.0, n=4)
    for gram, message in (
        (theory.Gram(good.K, good.values, (3, 5), "auto"), "paired samples, got sizes"),
        (theory.Gram(good.K, good.values, (8,), "auto"), "paired samples, got sizes"),
        (theory.Gram(good.K[:4, :4], good.values[:4], (2, 2), "auto"), "at least 3 pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            theory.alignment(gram)
    flat = good.K.clone()
    flat[5], flat[:, 5] = 0, 0
    with pytest.raises(ValueError, match="gradient of sample 1 of source 1 is zero"):
        theory.alignment(theory.Gram(flat, good.values, (4, 4), "auto"))
    with pytest.raises(ValueError, match="permutations must be >= 1"):
        theory.alignment(good, permutations=0)


def test_squeezing_follows_chosen_rejected_and_likeliest() -> None:
    logits = torch.tensor([[[3.0, 1.0, 0.0, -4.0]], [[3.0, 1.0, 0.0, -4.0]]])
    chosen, rejected = torch.tensor([[1], [1]]), torch.tensor([[3], [3]])
    after = logits.clone()
    after[0, 0, 3] -= 2.0
    after[0, 0, 1] -= 0.1
    after[0, 0, 0] += 1.0
    result = theory.squeezing(logits, after, chosen, rejected)
    exact = (after.double().log_softmax(-1) - logits.double().log_softmax(-1))[0, 0]
    torch.testing.assert_close(
        torch.stack([result.chosen[0], result.rejected[0], result.likeliest[0]]), exact[[1, 3, 0]]
    )
    assert result.squeezed.tolist() == [True, False]
    assert result.entropy[0] < 0 and result.entropy[1] == 0


def test_squeezing_counts_masked_positions_only() -> None:
    before, after = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    chosen, rejected = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)
    mask = torch.tensor([[True, False, False], [True, True, False]])
    result = theory.squeezing(before, after, chosen, rejected, mask)
    alone = theory.squeezing(before[:1, :1], after[:1, :1], chosen[:1, :1], rejected[:1, :1])
    torch.testing.assert_close(result.likeliest[0], alone.likeliest[0])
    with pytest.raises(ValueError, match="sample 1 has no position that counts"):
        theory.squeezing(before, after, chosen, rejected, mask & torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="V >= 3"):
        theory.squeezing(before[..., :2], after[..., :2], chosen, rejected)
    with pytest.raises(ValueError, match=r"rejected has shape \(2, 2\)"):
        theory.squeezing(before, after, chosen, rejected[:, :2])
