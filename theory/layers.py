"""Uses of a layer's weight in a forward pass, and the per-sample gradients that follow from them.

Shape suffixes: n samples; T positions; A inputs; B outputs; R rows and C columns of the weight seen as a matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from theory.ghost import ghost_embedding, ghost_linear, linear_costs
from theory.gradients import Pairs, ParamGrads, Product

_TILE = 1 << 21  # per-sample gradient entries held at once


class Use(ABC):
    """One use of a parameter by the samples of one source."""

    @abstractmethod
    def tile(self, rows: slice) -> Tensor:
        """Return the per-sample gradients of some rows of the parameter, shape (n, rows, C)."""

    @abstractmethod
    def dot(self, delta_RC: Tensor) -> Tensor:
        """Return the inner product of each per-sample gradient with ``delta_RC``, shape (n,)."""

    @abstractmethod
    def weighted_sum(self, weights_n: Tensor, rows: int) -> Tensor:
        """Return the weighted sum of the per-sample gradients over the whole parameter, shape (rows, C)."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Use:
        """Return the same use with factors in ``dtype``."""


class FactoredUse(Use):
    """A use whose gradient is a sum over positions of products of two factors.

    Args:
        inputs: Inputs of the layer at each position, shape (n, T, A), or ids of embedding rows, shape (n, T).
        b_nTB: Gradients at the layer's output.
    """

    def __init__(self, inputs: Tensor, b_nTB: Tensor) -> None:
        self.inputs, self.b_nTB = inputs, b_nTB


class LinearUse(FactoredUse):
    """Gradient sum_t b_t a_t^T: the weight of a linear layer."""

    def tile(self, rows: slice) -> Tensor:
        """Return the per-sample gradients of some rows, shape (n, rows, A)."""
        return self.b_nTB[:, :, rows].transpose(1, 2) @ self.inputs

    def dot(self, delta_RC: Tensor) -> Tensor:
        """Return sum_t b_t^T delta a_t, shape (n,)."""
        return ((self.inputs @ delta_RC.T) * self.b_nTB).sum((1, 2))

    def weighted_sum(self, weights_n: Tensor, rows: int) -> Tensor:
        """Return the weighted sum over samples and positions in one product, shape (rows, A)."""
        return (self.b_nTB * weights_n[:, None, None]).flatten(0, 1).T @ self.inputs.flatten(0, 1)

    def to(self, dtype: torch.dtype) -> LinearUse:
        """Return the same use with factors in ``dtype``."""
        return LinearUse(self.inputs.to(dtype), self.b_nTB.to(dtype))


class EmbeddingUse(FactoredUse):
    """Gradient sum_t e_{id_t} b_t^T: the table of an embedding; the gradients at padding positions are zero."""

    def tile(self, rows: slice) -> Tensor:
        """Return the per-sample gradients of some rows, shape (n, rows, B)."""
        n, _, width = self.b_nTB.shape
        count = rows.stop - rows.start
        inside_nT = (self.inputs >= rows.start) & (self.inputs < rows.stop)
        at_nT = torch.where(inside_nT, self.inputs - rows.start, count)
        out = self.b_nTB.new_zeros(n, count + 1, width)
        out.scatter_add_(1, at_nT.unsqueeze(-1).expand_as(self.b_nTB), self.b_nTB)
        return out[:, :count]

    def dot(self, delta_RC: Tensor) -> Tensor:
        """Return sum_t b_t . delta[id_t], shape (n,)."""
        return (delta_RC[self.inputs] * self.b_nTB).sum((1, 2))

    def weighted_sum(self, weights_n: Tensor, rows: int) -> Tensor:
        """Return the weighted sum over samples and positions, shape (rows, B)."""
        weighted_NB = (self.b_nTB * weights_n[:, None, None]).flatten(0, 1)
        return self.b_nTB.new_zeros(rows, weighted_NB.shape[1]).index_add_(0, self.inputs.flatten(), weighted_NB)

    def to(self, dtype: torch.dtype) -> EmbeddingUse:
        """Return the same use with factors in ``dtype``."""
        return EmbeddingUse(self.inputs, self.b_nTB.to(dtype))

    def renumbered(self, kept: Tensor) -> EmbeddingUse:
        """Return the same use of a table that holds only the sorted rows ``kept``."""
        return EmbeddingUse(torch.searchsorted(kept, self.inputs.contiguous()), self.b_nTB)


class DenseUse(Use):
    """Gradients stored in full: biases, norms and other small parameters."""

    def __init__(self, grads_nRC: Tensor) -> None:
        self.grads_nRC = grads_nRC

    def tile(self, rows: slice) -> Tensor:
        """Return the per-sample gradients of some rows, shape (n, rows, C)."""
        return self.grads_nRC[:, rows]

    def dot(self, delta_RC: Tensor) -> Tensor:
        """Return the inner product with ``delta_RC``, shape (n,)."""
        return self.grads_nRC.flatten(1) @ delta_RC.reshape(-1)

    def weighted_sum(self, weights_n: Tensor, rows: int) -> Tensor:
        """Return the weighted sum over samples, shape (rows, C)."""
        return torch.tensordot(weights_n, self.grads_nRC, dims=1)

    def to(self, dtype: torch.dtype) -> DenseUse:
        """Return the same use in ``dtype``."""
        return DenseUse(self.grads_nRC.to(dtype))


class LayerGrads(ParamGrads):
    """Per-sample gradients of one parameter, stored as its uses.

    A parameter that is used more than once (a reused module, tied weights) has several uses per source, which add up.

    Args:
        uses: The uses by source.
        sizes: Number of samples of each source.
        shape: Rows and columns of the parameter seen as a matrix.
        dtype: Dtype of the products.
        device: Device of the parameter.
    """

    def __init__(
        self,
        uses: Sequence[Sequence[Use]],
        sizes: Sequence[int],
        shape: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._uses = [[use.to(dtype) for use in group] for group in uses]
        self._sizes, self._shape, self._dtype = list(sizes), shape, dtype
        self._device = device

    def blocks(self, pairs: Pairs, product: Product) -> Mapping[tuple[int, int], Tensor]:
        """Return the inner products, shape (n_i, n_j), formed by ``product``."""
        live = [(i, j) for i, j in pairs if self._uses[i] and self._uses[j]]
        ghost = self._ghost(live, product)
        return ghost if ghost is not None else self._tiled(live)

    def dense(self, group: int) -> Tensor:
        """Return the gradients of one source, shape (n, P)."""
        return self._tile(self._uses, group, slice(0, self._shape[0])).flatten(1)

    def dot(self, group: int, delta: Tensor) -> Tensor:
        """Return the inner product with ``delta``, shape (n,), without forming a gradient."""
        delta_RC = delta.reshape(self._shape).to(self._dtype)
        out_n = torch.zeros(self._sizes[group], dtype=self._dtype, device=self._device)
        for use in self._uses[group]:
            out_n = out_n + use.dot(delta_RC)
        return out_n

    def weighted_sum(self, group: int, weights: Tensor) -> Tensor:
        """Return the weighted sum of the gradients, shape (P,)."""
        out_RC = torch.zeros(self._shape, dtype=self._dtype, device=self._device)
        for use in self._uses[group]:
            out_RC += use.weighted_sum(weights.to(out_RC), self._shape[0])
        return out_RC.flatten()

    def _tile(self, uses: list[list[Use]], group: int, rows: slice) -> Tensor:
        count = rows.stop - rows.start
        if not uses[group]:
            return torch.zeros(self._sizes[group], count, self._shape[1], dtype=self._dtype, device=self._device)
        out = uses[group][0].tile(rows)
        for use in uses[group][1:]:
            out = out + use.tile(rows)
        return out

    def _tiled(self, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], Tensor]:
        rows, columns = self._shape
        uses = self._uses
        groups = sorted({group for pair in pairs for group in pair})
        tables = [use for group in uses for use in group if isinstance(use, EmbeddingUse)]
        if len(tables) == sum(map(len, uses)):  # rows that were never looked up have no gradient
            kept = torch.unique(torch.cat([use.inputs.flatten() for use in tables]))
            uses = [[use.renumbered(kept) for use in group if isinstance(use, EmbeddingUse)] for group in uses]
            rows = len(kept)
        out: dict[tuple[int, int], Tensor] = {}
        for tile in _tiles(rows, max(1, sum(self._sizes[g] for g in groups)) * columns):
            formed = {g: self._tile(uses, g, tile).flatten(1) for g in groups}
            for i, j in pairs:
                block = formed[i] @ formed[j].T
                out[i, j] = out[i, j] + block if (i, j) in out else block
        return out

    def _ghost(self, pairs: list[tuple[int, int]], product: Product) -> dict[tuple[int, int], Tensor] | None:
        if product == "dense" or not pairs:
            return None
        uses = [use for group in self._uses for use in group]
        linear = all(isinstance(use, LinearUse) for use in uses)
        table = all(isinstance(use, EmbeddingUse) for use in uses)
        if not linear and not (table and product == "ghost"):
            return None
        factors = {group: self._factors(group) for group in {group for pair in pairs for group in pair}}
        if linear:
            shapes = {group: (b_nTB.shape[0], b_nTB.shape[1]) for group, (_, b_nTB) in factors.items()}
            ghost, formed = linear_costs(shapes, pairs, self._shape[1], self._shape[0])
            if product == "auto" and ghost >= formed:
                return None
            return {(i, j): ghost_linear(*factors[i], *factors[j]) for i, j in pairs}
        return {(i, j): ghost_embedding(*factors[i], *factors[j]) for i, j in pairs}

    def _factors(self, group: int) -> tuple[Tensor, Tensor]:
        """Return both factors of a source's uses, concatenated along the positions."""
        uses = [use for use in self._uses[group] if isinstance(use, FactoredUse)]
        if len(uses) == 1:
            return uses[0].inputs, uses[0].b_nTB
        return torch.cat([use.inputs for use in uses], 1), torch.cat([use.b_nTB for use in uses], 1)


def _tiles(rows: int, numbers_per_row: int) -> list[slice]:
    step = max(1, _TILE // max(1, numbers_per_row))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
