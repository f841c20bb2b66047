"""Per-sample gradients as feature vectors, whole or sketched, with a warning if the sketch's noise hides the cosines.

Shape suffixes: N samples of all sources; n of one; P entries of a parameter; D features.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from theory.checks import check_once, checked_stream
from theory.conditions import require_conditions
from theory.contract import Source, checked_sources, sample_count
from theory.gradients import ParamGrads, product_dtype
from theory.kernel import Gram
from theory.methods import Method
from theory.selection import Select, select_parameters

_NONZEROS = 4  # columns that each gradient entry is added to: a sparse Johnson-Lindenstrauss transform


class SketchNoiseWarning(UserWarning):
    """The cosines computed from a sketch are not larger than the sketch's noise."""


@dataclass(frozen=True)
class Features:
    """Gradient features of the samples of one or more sources.

    Attributes:
        rows: One gradient, or its sketch, per row; shape (N, D).
        values: Log-likelihoods, shape (N,), in nats.
        sizes: Number of samples of each source.
        sketch: Width of the sketch, or None for whole gradients.
        method: The method that computed the gradients.
    """

    rows: Tensor
    values: Tensor
    sizes: tuple[int, ...]
    sketch: int | None
    method: Method

    def cosines(self, i: int, j: int) -> Tensor:
        """Return the cosines between the gradients of source i and source j.

        A sketch of width D gives each cosine an error of about 1 / sqrt(D). If the mean absolute cosine of the block
        (without the diagonal if i = j) is below twice that, the cosines are indistinguishable from zero.

        Args:
            i: Index of the first source.
            j: Index of the second source.

        Returns:
            Cosines, shape (n_i, n_j), in [-1, 1].

        Warns:
            SketchNoiseWarning: If the sketch's noise hides them; compute the exact block with ``gram``.
        """
        whole = Gram(self.rows @ self.rows.T, self.values, self.sizes, self.method).cosines()
        block = Gram(whole, self.values, self.sizes, self.method).block(i, j)
        self._warn_if_noisy(block, i, j)
        return block

    def gram(self) -> Gram:
        """Return the kernel of these features; warn as :meth:`cosines` does, for every block between two sources."""
        for i in range(len(self.sizes)):
            for j in range(i + 1, len(self.sizes)):
                self.cosines(i, j)
        return Gram(self.rows @ self.rows.T, self.values, self.sizes, self.method)

    def _warn_if_noisy(self, block: Tensor, i: int, j: int) -> None:
        if self.sketch is None:
            return
        cosines = block[~torch.eye(len(block), dtype=torch.bool, device=block.device)] if i == j else block.flatten()
        if cosines.numel() == 0:
            return
        size, noise = float(cosines.abs().mean()), 1 / math.sqrt(self.sketch)
        if size < 2 * noise:
            warnings.warn(
                f"cosines between sources {i} and {j} have mean size {size:.2g}, within the noise {noise:.2g} of a "
                f"sketch of width {self.sketch}; use gram(), which is exact, or sketch=None",
                SketchNoiseWarning,
                stacklevel=3,
            )


def features(
    model: nn.Module,
    sources: Sequence[Source],
    select: Select = None,
    method: Method = "auto",
    sketch: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    check: bool = True,
) -> Features:
    """Collect per-sample gradients, layer by layer.

    When to use it: for many samples, if their kernel would be too large or need only be approximate, and whenever the
    gradients themselves are needed. Memory: N P numbers for P selected parameters, or N ``sketch``. Time: that of
    :func:`theory.gram` and, with a sketch, 4 N P additions.

    Args:
        model: The model, in eval mode.
        sources: Log-likelihoods and their batches.
        select: Which parameters.
        method: How the gradients are computed; see :data:`theory.methods.Method`.
        sketch: Width of a sparse random projection that keeps inner products on average; None for whole gradients.
        seed: Seed of the projection; the same seed and selection give the same projection.
        dtype: The dtype of the result; None for the parameters' own, at least float32.
        check: Compare with plain autograd, as :func:`theory.gram` does.

    Returns:
        The features of all samples.

    Raises:
        ValueError: If ``sketch`` is below 1, or if the result could not be trusted.
    """
    if sketch is not None and sketch < 1:
        raise ValueError(f"sketch must be >= 1 or None, got {sketch}")
    sources = checked_sources(sources)
    require_conditions(model)
    params = select_parameters(model, select)
    if check:
        check_once(model, sources, select, method)
    dtype = product_dtype(params, dtype)
    sizes = tuple(sample_count(batch) for _, batch in sources)
    starts, width = {}, 0
    for name, p in params.items():
        starts[name], width = width, width + p.numel()
    rows_ND = torch.zeros(sum(sizes), sketch or width, dtype=dtype, device=next(iter(params.values())).device)

    def keep(name: str, grads: ParamGrads) -> None:
        grads_NP = torch.cat([grads.dense(group) for group in range(len(sizes))])
        if sketch is None:
            rows_ND[:, starts[name] : starts[name] + grads_NP.shape[1]] = grads_NP
        else:
            _add_sketch(rows_ND, grads_NP, zlib.crc32(f"{seed}:{name}".encode()))

    groups = range(len(sources)) if check else ()
    values = checked_stream(model, sources, params, keep, dtype, method, groups)
    return Features(rows_ND, torch.cat(values), sizes, sketch, method)


def _add_sketch(rows_ND: Tensor, grads_NP: Tensor, seed: int) -> None:
    """Add each gradient entry, with random sign, to a few random columns."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(_NONZEROS):
        column_P = torch.randint(rows_ND.shape[1], (grads_NP.shape[1],), generator=draw).to(rows_ND.device)
        sign_P = torch.randint(2, (grads_NP.shape[1],), generator=draw).to(rows_ND) * 2 - 1
        rows_ND.index_add_(1, column_P, grads_NP * sign_P, alpha=1 / math.sqrt(_NONZEROS))
