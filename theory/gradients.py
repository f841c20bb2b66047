"""Per-sample gradients of one parameter, and operations on them: products, projections, weighted sums.

Shape suffixes: n samples of one source, P entries of the parameter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Product: TypeAlias = Literal["ghost", "dense", "auto"]
"""How inner products are formed: from factors, from the gradients themselves, or by the cheaper of the two."""

Pairs: TypeAlias = Sequence[tuple[int, int]]
"""Pairs (i, j) of sources whose gradients are to be multiplied."""


class ParamGrads(ABC):
    """Per-sample gradients of one parameter for every source, in the form that its method produces."""

    @abstractmethod
    def blocks(self, pairs: Pairs, product: Product) -> Mapping[tuple[int, int], Tensor]:
        """Return the inner products of per-sample gradients, shape (n_i, n_j), for each pair (i, j) of sources."""

    @abstractmethod
    def dense(self, group: int) -> Tensor:
        """Return the gradients of one source, shape (n, P)."""

    @abstractmethod
    def dot(self, group: int, delta: Tensor) -> Tensor:
        """Return the inner product of each gradient with ``delta`` (the parameter's shape), shape (n,)."""

    @abstractmethod
    def weighted_sum(self, group: int, weights: Tensor) -> Tensor:
        """Return the sum of the gradients of one source, weighted by ``weights`` of shape (n,); shape (P,)."""


Visit: TypeAlias = Callable[[str, ParamGrads], None]
"""Receive a parameter's name and gradients as soon as they are complete, once per parameter; must not keep them."""


class DenseGrads(ParamGrads):
    """Gradients stored in full.

    Args:
        rows: One tensor of shape (n, P) per source.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self._rows_nP = list(rows)

    def blocks(self, pairs: Pairs, product: Product) -> Mapping[tuple[int, int], Tensor]:
        """Return the inner products, shape (n_i, n_j); see the base class."""
        return {(i, j): self._rows_nP[i] @ self._rows_nP[j].T for i, j in pairs}

    def dense(self, group: int) -> Tensor:
        """Return the gradients of one source, shape (n, P)."""
        return self._rows_nP[group]

    def dot(self, group: int, delta: Tensor) -> Tensor:
        """Return the inner product with ``delta``, shape (n,)."""
        rows_nP = self._rows_nP[group]
        return rows_nP @ delta.reshape(-1).to(rows_nP.dtype)

    def weighted_sum(self, group: int, weights: Tensor) -> Tensor:
        """Return the weighted sum of the gradients, shape (P,)."""
        rows_nP = self._rows_nP[group]
        return weights.to(rows_nP.dtype) @ rows_nP


def product_dtype(params: Mapping[str, Tensor], dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype of products: the requested one, or else the parameters' own but at least float32.

    Raises:
        ValueError: If ``dtype`` is not float32 or float64: in narrower dtypes rounding hides the cross block.
    """
    if dtype is None:
        dtype = torch.float32
        for p in params.values():
            dtype = torch.promote_types(dtype, p.dtype)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}; a kernel needs torch.float32 or torch.float64")
    return dtype
