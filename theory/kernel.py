"""The empirical neural tangent kernel: inner products of gradients of log-likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, pairwise

import torch
from torch import Tensor, nn

from theory.checks import check_once, checked_stream
from theory.conditions import require_conditions
from theory.contract import Source, checked_sources, sample_count, take
from theory.gradients import ParamGrads, product_dtype
from theory.methods import Method, product_of
from theory.selection import Select, select_parameters


@dataclass(frozen=True)
class Gram:
    """Kernel over the samples of one or more sources.

    Attributes:
        K: Inner products of per-sample gradients, shape (N, N), symmetric; samples in the order of the sources.
        values: Log-likelihoods, shape (N,), in nats.
        sizes: Number of samples of each source; by convention generation first, understanding second.
        parts: Share of ``K`` by name of the module that owns the parameters; the shares add up to ``K``. Empty unless
            computed with ``per_module``.
        method: The method that computed the gradients.
    """

    K: Tensor
    values: Tensor
    sizes: tuple[int, ...]
    method: Method
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def gg(self) -> Tensor:
        """Kernel of generation with generation, shape (n_0, n_0)."""
        return self.block(0, 0)

    @property
    def uu(self) -> Tensor:
        """Kernel of understanding with understanding, shape (n_1, n_1)."""
        return self.block(1, 1)

    @property
    def gu(self) -> Tensor:
        """Kernel of generation with understanding, shape (n_0, n_1)."""
        return self.block(0, 1)

    def block(self, i: int, j: int) -> Tensor:
        """Return the kernel of source i with source j, shape (n_i, n_j).

        Raises:
            ValueError: If there is no such source.
        """
        if not (0 <= i < len(self.sizes) and 0 <= j < len(self.sizes)):
            raise ValueError(f"block ({i}, {j}) asked of a Gram with {len(self.sizes)} source(s), numbered from 0")
        rows, columns = _spans(self.sizes)[i], _spans(self.sizes)[j]
        return self.K[rows, columns]

    def part(self, name: str) -> Gram:
        """Return the Gram of one module's parameters only.

        Raises:
            ValueError: If the module has no part; the message lists the modules that do.
        """
        if name not in self.parts:
            known = ", ".join(self.parts) or "none: compute the Gram with per_module=True"
            raise ValueError(f"no part named {name!r}; available: {known}")
        return Gram(self.parts[name], self.values, self.sizes, self.method)

    def regrouped(self, label: Callable[[str], str]) -> Gram:
        """Sum parts under new names, e.g. modules into layers.

        Args:
            label: Function from a part's name to its new name.

        Returns:
            The same Gram with fewer parts.
        """
        merged: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            merged[label(name)] = merged[label(name)] + part if label(name) in merged else part
        return Gram(self.K, self.values, self.sizes, self.method, merged)

    def cosines(self) -> Tensor:
        """Return the cosines between gradients, shape (N, N), in [-1, 1]; zero for a gradient of zero."""
        norms = self.K.diagonal().clamp_min(0).sqrt()
        scale = norms[:, None] * norms[None, :]
        return torch.where(scale > 0, self.K / scale.clamp_min(torch.finfo(self.K.dtype).tiny), 0.0).clamp(-1, 1)


def gram(
    model: nn.Module,
    sources: Sequence[Source],
    select: Select = None,
    method: Method = "auto",
    per_module: bool = False,
    dtype: torch.dtype | None = None,
    check: bool = True,
) -> Gram:
    """Compute the exact kernel K_ij = <grad logp_i, grad logp_j> over the samples of all sources.

    When to use it: for all pairs of up to a few hundred samples. All sources go through the model at once, so memory
    grows with the number of samples; :func:`cross_gram` bounds it. Time: about 1.5 forward and backward passes over the
    samples, and 1.3 more for the check; it depends on ``method``, see :data:`theory.methods.Method`.

    Args:
        model: The model, in eval mode; unchanged.
        sources: (logp_fn, batch) pairs; generation first and understanding second give the named blocks.
        select: Which parameters: a selection, a pattern, patterns, or None for those that require a gradient.
        method: How gradients are computed; see :data:`theory.methods.Method`. All methods agree up to rounding.
        per_module: Also return the share of each module that owns parameters.
        dtype: Dtype of products and result, float32 or float64; None for the parameters' own, at least float32.
        check: Compare the gradients with plain autograd: over the whole batch on every call, and by
            :func:`theory.checks.self_check` on the first call with this model, logp_fn and selection.

    Returns:
        The Gram over N samples.

    Raises:
        ValueError: If the result could not be trusted; the message names the sample or parameter.
    """
    sources = checked_sources(sources)
    require_conditions(model)
    params = select_parameters(model, select)
    if check:
        check_once(model, sources, select, method)
    dtype = product_dtype(params, dtype)
    sizes = tuple(sample_count(batch) for _, batch in sources)
    pairs = list(combinations_with_replacement(range(len(sources)), 2))
    spans = _spans(sizes)
    device = next(iter(params.values())).device
    total = torch.zeros(sum(sizes), sum(sizes), dtype=dtype, device=device)
    parts: dict[str, Tensor] = {}

    def add_up(name: str, grads: ParamGrads) -> None:
        targets = [total]
        if per_module:
            targets.append(parts.setdefault(name.rpartition(".")[0], torch.zeros_like(total)))
        for (i, j), block in grads.blocks(pairs, product_of(method)).items():
            for target in targets:
                target[spans[i], spans[j]] += block

    groups = range(len(sources)) if check else ()
    values = checked_stream(model, sources, params, add_up, dtype, method, groups)
    for target in (total, *parts.values()):
        for i, j in pairs:
            if i != j:
                target[spans[j], spans[i]] = target[spans[i], spans[j]].T
    _refuse_broken_gradients(total, sizes)
    return Gram(total, torch.cat(values), sizes, method, parts)


def cross_gram(
    model: nn.Module,
    rows: Source,
    columns: Source,
    select: Select = None,
    method: Method = "auto",
    dtype: torch.dtype | None = None,
    block: int = 32,
    check: bool = True,
) -> Tensor:
    """Compute the kernel between two sample sets block by block, so that memory does not grow with their sizes.

    When to use it: for large sets, or if only the products between two sets are needed. Each pair of blocks takes a
    forward and backward pass over both, and there are (R / block) (C / block) pairs, so use the largest block that fits
    in memory. Each block of rows and each block of columns is checked once.

    Args:
        model: The model, in eval mode.
        rows: Log-likelihood and batch of R samples.
        columns: Log-likelihood and batch of C samples.
        select: Which parameters.
        method: How gradients are computed; see :data:`theory.methods.Method`.
        dtype: Dtype of products and result; None for the parameters' own, at least float32.
        block: Samples of each set processed at a time.
        check: Compare with plain autograd, as :func:`gram` does.

    Returns:
        Inner products of gradients, shape (R, C).

    Raises:
        ValueError: If ``block`` is below 1, or if the result could not be trusted.
    """
    if block < 1:
        raise ValueError(f"block must be >= 1, got {block}")
    rows, columns = checked_sources([rows, columns])
    require_conditions(model)
    params = select_parameters(model, select)
    if check:
        check_once(model, [rows, columns], select, method)
    dtype = product_dtype(params, dtype)
    out = torch.zeros(sample_count(rows[1]), sample_count(columns[1]), dtype=dtype)
    out = out.to(next(iter(params.values())).device)
    for top in _slices(out.shape[0], block):
        for left in _slices(out.shape[1], block):
            pair = [(rows[0], take(rows[1], top)), (columns[0], take(columns[1], left))]

            def add_up(_: str, grads: ParamGrads, target: Tensor = out[top, left]) -> None:
                for product in grads.blocks([(0, 1)], product_of(method)).values():
                    target += product

            # compare each block of rows, and each block of columns, once
            groups = [group for group, other in ((0, left), (1, top)) if check and other.start == 0]
            checked_stream(model, pair, params, add_up, dtype, method, groups)
    return out


def _refuse_broken_gradients(kernel: Tensor, sizes: Sequence[int]) -> None:
    broken = (~torch.isfinite(kernel.diagonal())).nonzero().flatten()
    if len(broken):
        group, sample = 0, int(broken[0])
        while sample >= sizes[group]:
            group, sample = group + 1, sample - sizes[group]
        raise ValueError(
            f"the gradient of sample {sample} of source {group} is not finite; drop the sample, or look for a division "
            "by zero or a fully masked softmax in the logp_fn"
        )


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def _slices(n: int, step: int) -> list[slice]:
    return [slice(start, min(n, start + step)) for start in range(0, n, step)]
