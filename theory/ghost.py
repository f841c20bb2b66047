"""Inner products of per-sample weight gradients from their factors, without forming the gradients.

A linear layer's gradient for sample i is sum_t b_it a_it^T, so <G_i, G_j> = sum_ts (a_it . a_js)(b_it . b_js).

Shape suffixes: n, m samples; T, S positions; A inputs; B outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

_BUDGET = 1 << 22  # elements of one (rows, T, m, S) product


def ghost_linear(a_nTA: Tensor, b_nTB: Tensor, a_mSA: Tensor, b_mSB: Tensor) -> Tensor:
    """Return the inner products of linear-layer gradients.

    Args:
        a_nTA: Inputs of the first samples.
        b_nTB: Gradients at the outputs of the first samples.
        a_mSA: Inputs of the second samples.
        b_mSB: Gradients at the outputs of the second samples.

    Returns:
        Inner products, shape (n, m).
    """
    return _rowwise(b_nTB, b_mSB, lambda rows: a_nTA[rows].flatten(0, 1) @ a_mSA.flatten(0, 1).T)


def ghost_embedding(ids_nT: Tensor, b_nTB: Tensor, ids_mS: Tensor, b_mSB: Tensor) -> Tensor:
    """Return the inner products of embedding gradients: only positions that look up the same row contribute.

    Args:
        ids_nT: Rows looked up by the first samples.
        b_nTB: Gradients at the outputs of the first samples.
        ids_mS: Rows looked up by the second samples.
        b_mSB: Gradients at the outputs of the second samples.

    Returns:
        Inner products, shape (n, m).
    """
    return _rowwise(b_nTB, b_mSB, lambda rows: ids_nT[rows].reshape(-1, 1) == ids_mS.reshape(1, -1))


def linear_costs(
    shapes: Mapping[int, tuple[int, int]], pairs: Sequence[tuple[int, int]], n_in: int, n_out: int
) -> tuple[int, int]:
    """Count the multiplications of both ways to compute the products of a linear layer.

    Args:
        shapes: (samples, positions) of each source.
        pairs: Pairs of sources to multiply.
        n_in: Inputs of the layer.
        n_out: Outputs of the layer.

    Returns:
        Multiplications of ghost products, and of products of formed gradients.
    """
    ghost = sum(shapes[i][0] * shapes[i][1] * shapes[j][0] * shapes[j][1] for i, j in pairs) * (n_in + n_out)
    formed = sum(n * t for n, t in shapes.values()) * n_in * n_out
    multiplied = sum(shapes[i][0] * shapes[j][0] for i, j in pairs) * n_in * n_out
    return ghost, formed + multiplied


def _rowwise(b_nTB: Tensor, b_mSB: Tensor, other_factor: Callable[[slice], Tensor]) -> Tensor:
    """Multiply the products of output gradients with those of the other factor, a few samples at a time."""
    (n, t, _), (m, s, _) = b_nTB.shape, b_mSB.shape
    step = max(1, _BUDGET // max(1, t * m * s))
    out_nm = b_nTB.new_empty(n, m)
    flat = b_mSB.flatten(0, 1).T
    for start in range(0, n, step):
        rows = slice(start, min(n, start + step))
        product = (b_nTB[rows].flatten(0, 1) @ flat).mul_(other_factor(rows))
        out_nm[rows] = product.view(len(b_nTB[rows]), t, m, s).sum((1, 3))
    return out_nm
