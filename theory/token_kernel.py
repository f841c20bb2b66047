"""Kernel between tokens of two heads on one shared LLM (trunk): W_a M W_b^T, never formed in full.

With logits z = W h and separate heads, all coupling goes through the trunk: K_kr = W_a M_kr W_b^T, where
M_kr = (dh_k / dtheta)(dh_r / dtheta)^T over the trunk's parameters.

Shape suffixes: K positions of sample a; R positions of sample b; V, W tokens of the heads; D width of the trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from theory.conditions import require_conditions, watched_forward
from theory.contract import detached_parameters, logp_at, sample_count
from theory.gradients import product_dtype
from theory.selection import Select, select_parameters

TokenFn: TypeAlias = Callable[[Any, Any], Tensor]
"""Values at every position of a batch of one sample: log-probabilities (1, T) or hidden states (1, T, D)."""


@dataclass(frozen=True)
class TokenKernel:
    """Kernel between every token of head a and every token of head b, at every pair of positions.

    Attributes:
        head_VD: Weight of head a, shape (V, D).
        trunk_KRDD: M_kr for each pair of positions, shape (K, R, D, D).
        head_WD: Weight of head b, shape (W, D).
    """

    head_VD: Tensor
    trunk_KRDD: Tensor
    head_WD: Tensor

    def __post_init__(self) -> None:
        widths = {self.head_VD.shape[-1], self.head_WD.shape[-1], *self.trunk_KRDD.shape[2:]}
        if self.trunk_KRDD.ndim != 4 or len(widths) != 1:
            raise ValueError(
                f"heads of shapes {tuple(self.head_VD.shape)}, {tuple(self.head_WD.shape)} do not fit a trunk kernel "
                f"of shape {tuple(self.trunk_KRDD.shape)}; they need (V, D), (W, D) and (K, R, D, D)"
            )

    def between(self, k: int, r: int, tokens_a: Tensor, tokens_b: Tensor) -> Tensor:
        """Return the kernel entries of some tokens at positions k and r.

        Args:
            k: Position in sample a.
            r: Position in sample b.
            tokens_a: Tokens of head a, shape (i,).
            tokens_b: Tokens of head b, shape (j,).

        Returns:
            Entries, shape (i, j).
        """
        entries: Tensor = self.head_VD[tokens_a] @ self.trunk_KRDD[k, r] @ self.head_WD[tokens_b].T
        return entries

    def influence(self, residual_KV: Tensor, residual_RW: Tensor) -> Tensor:
        """Return the token-by-token influence map residual_k^T K_kr residual_r: the terms of Lemma 1's double sum.

        With residual e_x - pi at each position, entry (k, r) is how much training on token r of sample b raises the
        log-probability of token k of sample a, per unit learning rate.

        Args:
            residual_KV: Residuals of sample a, shape (K, V).
            residual_RW: Residuals of sample b, shape (R, W).

        Returns:
            Influences, shape (K, R).
        """
        pulled_KD, pulled_RD = residual_KV @ self.head_VD, residual_RW @ self.head_WD
        map_KR: Tensor = torch.einsum("kd,krde,re->kr", pulled_KD, self.trunk_KRDD, pulled_RD)
        return map_KR

    def singular_values(self) -> Tensor:
        """Return the nonzero singular values of the whole (K V, R W) kernel, descending, from a (K D, R D) matrix."""
        values: Tensor = torch.linalg.svdvals(self._core())
        return values

    def eigenvalues(self) -> Tensor:
        """Return the nonzero eigenvalues of the kernel of one sample and head with itself, descending, all >= 0.

        Raises:
            ValueError: If the two sides differ; use :meth:`singular_values` then.
        """
        core = self._core()
        same = self.head_VD.shape == self.head_WD.shape and bool((self.head_VD == self.head_WD).all())
        if not same or core.shape[0] != core.shape[1] or not torch.allclose(core, core.T, rtol=1e-4):
            raise ValueError("eigenvalues need the same head and sample on both sides; use singular_values()")
        values: Tensor = torch.linalg.eigvalsh(core).flip(0).clamp_min(0)
        return values

    def effective_rank(self) -> float:
        """Return exp of the entropy of the normalised singular values: 1 for one direction, at most min(K, R) D."""
        values = self.singular_values()
        if float(values.sum()) == 0:
            return 0.0
        return float(torch.special.entr(values / values.sum()).sum().exp())

    def _core(self) -> Tensor:
        """Return the kernel in orthonormal coordinates of the heads: blocks R_a M_kr R_b^T."""
        r_a, r_b = torch.linalg.qr(self.head_VD).R, torch.linalg.qr(self.head_WD).R
        blocks = torch.einsum("id,krde,je->kirj", r_a, self.trunk_KRDD, r_b)
        return blocks.reshape(blocks.shape[0] * blocks.shape[1], -1)


def trunk_kernel(
    model: nn.Module,
    a: tuple[TokenFn, Any],
    b: tuple[TokenFn, Any],
    select: Select = None,
    positions_a: slice = slice(None),
    positions_b: slice = slice(None),
    chunk: int = 64,
) -> Tensor:
    """Compute M_kr between the hidden states of two samples.

    When to use it: for the influence between tokens through the shared LLM alone. One kernel serves every pair of
    tokens of two heads. Time: a backward pass for each of the K D + R D rows, ``chunk`` of them at once. Memory:
    positions times width times parameters; select positions or parameters to bound it.

    Args:
        model: The model, in eval mode, with attention that allows vmap.
        a: Function of the hidden states (1, T, D) that head a receives, and a batch of one sample.
        b: The same for head b.
        select: The trunk's parameters.
        positions_a: Positions of sample a to keep.
        positions_b: Positions of sample b to keep.
        chunk: Rows of the Jacobian computed at a time.

    Returns:
        The kernel, shape (K, R, D, D).
    """
    rows_KDP = _jacobian(model, a, select, positions_a, 3, chunk)
    rows_RDP = _jacobian(model, b, select, positions_b, 3, chunk)
    return torch.einsum("kdp,rep->krde", rows_KDP, rows_RDP)


def token_gram(
    model: nn.Module,
    a: tuple[TokenFn, Any],
    b: tuple[TokenFn, Any],
    select: Select = None,
    chunk: int = 64,
) -> Tensor:
    """Return inner products of gradients of single-token log-probabilities: the influence map for any heads.

    When to use it: for the tokens that were sampled, whatever the heads. Time: one backward pass per token. The entries
    sum to the entry of the two sequences in :func:`theory.gram`.

    Args:
        model: The model, in eval mode, with attention that allows vmap.
        a: Function of the log-probabilities (1, T) of the tokens, and a batch of one sample.
        b: The same for the other sample.
        select: Which parameters.
        chunk: Tokens differentiated at a time.

    Returns:
        Inner products, shape (K, R).
    """
    rows_KP = _jacobian(model, a, select, slice(None), 2, chunk)
    return rows_KP @ _jacobian(model, b, select, slice(None), 2, chunk).T


def _jacobian(
    model: nn.Module, side: tuple[TokenFn, Any], select: Select, positions: slice, ndim: int, chunk: int
) -> Tensor:
    """Return the rows of d value / d theta, shape (positions, P) or (positions, D, P)."""
    require_conditions(model)
    if sample_count(side[1]) != 1:
        raise ValueError(f"a token kernel is between two samples; the batch holds {sample_count(side[1])}, pass one")
    params = select_parameters(model, select)
    values = detached_parameters(model, None)
    chosen = {name: values[name] for name in params}

    def at_positions(given: dict[str, Tensor]) -> Tensor:
        out = logp_at(model, {**values, **given}, side)
        if out.ndim != ndim or out.shape[0] != 1:
            wanted = "(1, T, D)" if ndim == 3 else "(1, T)"
            raise ValueError(f"the token function returned shape {tuple(out.shape)}; it needs {wanted}")
        return out[0, positions]

    with watched_forward(model):
        out, pull_back = vjp(at_positions, chosen)[:2]
    basis = torch.eye(out.numel(), dtype=out.dtype, device=out.device).view(-1, *out.shape)
    (grads,) = vmap(pull_back, chunk_size=chunk)(basis)
    rows = torch.cat([grads[name].detach().flatten(1) for name in params], 1).to(product_dtype(params, None))
    return rows.view(*out.shape, -1)
