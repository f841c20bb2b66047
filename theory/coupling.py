"""Alignment of the generation and understanding gradients of the same sample, with permutation tests.

Shape suffixes: n samples, each with one generation and one understanding gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from theory.kernel import Gram


@dataclass(frozen=True)
class Tested:
    """A statistic and its permutation null, which pairs the understanding samples with images at random.

    Attributes:
        value: Observed value.
        null_mean: Its mean under the null.
        null_std: Its standard deviation under the null.
        p_value: Share of the null, with the observation included, that reaches the observed value; in (0, 1].
    """

    value: float
    null_mean: float
    null_std: float
    p_value: float


@dataclass(frozen=True)
class Alignment:
    """How generation and understanding are coupled, each statistic with its null.

    Attributes:
        own_cosine: Mean cosine between the generation and the understanding gradient of the same sample.
        coupling: Own-pair alignment after the direction common to all samples is removed:
            tr(H C_gu H) / sqrt(tr(H C_gg H) tr(H C_uu H)), H centring and C cosines; in [-1, 1].
        sign_agreement: Share of ordered pairs (i, j) of different samples for which training on generation j moves
            generation i and understanding i in the same direction.
        spearman: Rank correlation of those two changes over the pairs.
        cka: Centred kernel alignment of K_gg and K_uu. It compares the structure of two kernels, not gradients, and
            is large even without coupling. It means nothing without its null, and is no evidence of coupling with it.
    """

    own_cosine: Tested
    coupling: Tested
    sign_agreement: Tested
    spearman: Tested
    cka: Tested


def alignment(gram: Gram, permutations: int = 500, seed: int = 0) -> Alignment:
    """Test the coupling between the two heads.

    Args:
        gram: Gram of two paired sources: generation sample i belongs to understanding sample i.
        permutations: Number of random re-pairings in the null.
        seed: Seed of the re-pairings.

    Returns:
        The statistics and their nulls.

    Raises:
        ValueError: If the Gram is not of two sources of one size, has fewer than three pairs, holds a gradient that
            is zero, or ``permutations`` is under 1.
    """
    n = _checked_pairs(gram, permutations)
    cosines = gram.cosines().double()
    gg, uu, gu = cosines[:n, :n], cosines[n:, n:], cosines[:n, n:]
    kernel_uu = gram.uu.double()
    draw = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=draw).to(gu.device) for _ in range(permutations)]

    def tested(statistic: Callable[[Tensor], float]) -> Tested:
        return _against_null(statistic, orders, n)

    centred_scale = float((_centred(gg).trace() * _centred(uu).trace()).clamp_min(0).sqrt())
    centred_gu = _centred(gu)
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=gu.device)
    changes_gg = gg[off_diagonal]
    ranks_gg = _ranks(changes_gg)
    centred_gg, centred_uu = _centred(gram.gg.double()), _centred(kernel_uu)
    cka_scale = float(centred_gg.norm() * centred_uu.norm())
    return Alignment(
        own_cosine=tested(lambda order: float(gu[:, order].diagonal().mean())),
        coupling=tested(lambda order: _ratio(float(centred_gu[:, order].trace()), centred_scale)),
        sign_agreement=tested(lambda order: _sign_agreement(changes_gg, gu[:, order].T[off_diagonal])),
        spearman=tested(lambda order: _pearson(ranks_gg, _ranks(gu[:, order].T[off_diagonal]))),
        cka=tested(lambda order: _ratio(float((centred_gg * centred_uu[order][:, order]).sum()), cka_scale)),
    )


def own_cosines(gram: Gram) -> Tensor:
    """Return the cosine between the generation and the understanding gradient of each sample.

    Args:
        gram: Gram of two sources of n samples each, paired.

    Returns:
        Cosines, shape (n,), in [-1, 1].

    Raises:
        ValueError: Under the same conditions as :func:`alignment`.
    """
    n = _checked_pairs(gram, 1)
    return gram.cosines()[:n, n:].diagonal().clone()


def _checked_pairs(gram: Gram, permutations: int) -> int:
    if len(gram.sizes) != 2 or gram.sizes[0] != gram.sizes[1]:
        raise ValueError(
            f"alignment needs two sources of paired samples, got sizes {gram.sizes}; pair each image with its question"
        )
    n = gram.sizes[0]
    if n < 3:
        raise ValueError(f"alignment needs at least 3 pairs, got {n}")
    if permutations < 1:
        raise ValueError(f"permutations must be >= 1, got {permutations}")
    flat = (gram.K.diagonal() <= 0).nonzero().flatten()
    if len(flat):
        source, sample = divmod(int(flat[0]), n)
        raise ValueError(
            f"the gradient of sample {sample} of source {source} is zero over the selected parameters, so it has no "
            "direction; widen select= or drop the sample"
        )
    return n


def _against_null(statistic: Callable[[Tensor], float], orders: list[Tensor], n: int) -> Tested:
    value = statistic(torch.arange(n, device=orders[0].device))
    null = torch.tensor([statistic(order) for order in orders], dtype=torch.float64)
    reached = int((null >= value - 1e-12 * max(1.0, abs(value))).sum())
    return Tested(value, float(null.mean()), float(null.std(correction=0)), (1 + reached) / (1 + len(orders)))


def _centred(block: Tensor) -> Tensor:
    return block - block.mean(0, keepdim=True) - block.mean(1, keepdim=True) + block.mean()


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 0; ties get their mean rank."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank: Tensor = (last - (counts.double() + 1) / 2)[inverse]
    return mean_rank


def _sign_agreement(x: Tensor, y: Tensor) -> float:
    return float((x.sign() == y.sign()).double().mean())


def _pearson(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    return _ratio(float(x @ y), float(x.norm() * y.norm()))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else 0.0
