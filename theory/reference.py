"""Weighted sums of per-sample gradients by plain autograd: the reference for every method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from theory.conditions import watched_forward
from theory.contract import Source, checked_logps, detached_parameters, logp_at, sample_count, take
from theory.gradients import product_dtype

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}


@dataclass(frozen=True)
class Reference:
    """Weighted sums and log-likelihoods by plain autograd.

    Attributes:
        weights: Sample weights by source, shape (n,) each.
        sums: Weighted sum of all per-sample gradients by parameter, flattened.
        values: Log-likelihoods by source, shape (n,) each, detached.
    """

    weights: Sequence[Tensor]
    sums: Mapping[str, Tensor]
    values: Sequence[Tensor]


def tolerance_of(params: Mapping[str, Tensor]) -> float:
    """Return the relative error that rounding in the parameters' dtype can cause."""
    return max(_TOLERANCE.get(p.dtype, 2e-3) for p in params.values())


def sample_by_sample(model: nn.Module, sources: Sequence[Source], params: Mapping[str, Tensor]) -> Reference:
    """Differentiate each sample alone on the model itself, with one backward pass per sample.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches, of few samples.
        params: The selected parameters, by name.

    Returns:
        The reference.

    Raises:
        ValueError: If samples influence one another, a gradient is not finite, or nothing depends on the parameters.
    """
    weights = _weights(sources, params)
    sums = _zeros(params)
    values, reached = [], False
    with torch.enable_grad(), _requiring_grad(params):
        for group, (fn, batch) in enumerate(sources):
            n = sample_count(batch)
            with torch.no_grad(), watched_forward(model):
                together = checked_logps(fn(model, batch), n, group)
            values.append(together)
            for i in range(n):
                which = "first" if i == 0 else "last"
                alone = checked_logps(fn(model, take(batch, [i])), 1, group)
                _refuse_coupling(alone[0].detach(), together[i], group, which, tolerance_of(params))
                if not alone.requires_grad:
                    continue
                reached = True
                grads = torch.autograd.grad(alone[0], list(params.values()), allow_unused=True)
                _refuse_broken(dict(zip(params, grads, strict=True)), f"the {which} sample", group)
                _add(sums, params, grads, float(weights[group][i]))
    if not reached:
        raise ValueError(
            "no log-likelihood depends on a selected parameter; "
            "widen select=, or remove torch.no_grad and detach from the logp_fn"
        )
    return Reference(weights, sums, values)


def whole_batch(
    model: nn.Module, sources: Sequence[Source], params: Mapping[str, Tensor], at: Mapping[str, Tensor] | None = None
) -> Reference:
    """Differentiate the weighted sum of all log-likelihoods: one forward and one backward pass per source.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches.
        params: The selected parameters, by name.
        at: Parameter values that replace the model's own, by name; None for none.

    Returns:
        The reference.

    Raises:
        ValueError: If a gradient is not finite; the message names the sample.
    """
    weights, sums, values = _weights(sources, params), _zeros(params), []
    moved = {} if at is None else detached_parameters(model, at)
    # with `at`, new leaves replace the parameters; otherwise the model runs exactly as its user runs it
    leaves = dict(params) if at is None else {name: moved[name].requires_grad_() for name in params}
    with torch.enable_grad(), _requiring_grad(leaves), watched_forward(model):
        for group, source in enumerate(sources):
            fn, batch = source
            logps = fn(model, batch) if at is None else logp_at(model, moved, source)
            logps = checked_logps(logps, sample_count(batch), group)
            values.append(logps.detach())
            if logps.requires_grad:
                total = logps @ weights[group].to(logps)
                grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
                if not all(grad is None or bool(torch.isfinite(grad).all()) for grad in grads):
                    _name_broken(model, source, group, leaves, moved)
                _add(sums, params, grads, 1.0)
    return Reference(weights, sums, values)


def _weights(sources: Sequence[Source], params: Mapping[str, Tensor]) -> list[Tensor]:
    """Draw sample weights that differ clearly, so that a gradient credited to the wrong sample shows.

    They have both signs but do not cancel, so that a gradient that all samples share does not vanish from the sum.
    """
    draw = torch.Generator().manual_seed(0)
    weights = []
    for _, batch in sources:
        n = sample_count(batch)
        while True:
            drawn = (0.5 + torch.rand(n, generator=draw)) * (torch.randint(2, (n,), generator=draw) * 2 - 1)
            if abs(float(drawn.sum())) >= 0.5 * n**0.5:
                break
        weights.append(drawn.to(product_dtype(params, None)).to(next(iter(params.values())).device))
    return weights


def _zeros(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    dtype = product_dtype(params, None)
    return {name: torch.zeros(p.numel(), dtype=dtype, device=p.device) for name, p in params.items()}


def _add(
    sums: Mapping[str, Tensor], params: Mapping[str, Tensor], grads: Sequence[Tensor | None], weight: float
) -> None:
    for name, grad in zip(params, grads, strict=True):
        if grad is not None:
            sums[name].add_(grad.reshape(-1), alpha=weight)


def _refuse_coupling(alone: Tensor, together: Tensor, group: int, which: str, tolerance: float) -> None:
    if abs(float(alone - together)) > tolerance * max(1.0, abs(float(together))):
        raise ValueError(
            f"the {which} sample of source {group} has log-likelihood {float(alone):.6g} alone and "
            f"{float(together):.6g} in a batch with another; samples must not influence one another: call model.eval() "
            "and remove means and norms over the batch from the logp_fn"
        )


def _name_broken(
    model: nn.Module, source: Source, group: int, leaves: Mapping[str, Tensor], moved: Mapping[str, Tensor]
) -> None:
    """Find the first sample whose own gradient is not finite."""
    fn, batch = source
    for i in range(sample_count(batch)):
        one = take(batch, [i])
        alone = logp_at(model, moved, (fn, one)) if moved else fn(model, one)
        if alone.requires_grad:
            grads = torch.autograd.grad(alone.sum(), list(leaves.values()), allow_unused=True)
            _refuse_broken(dict(zip(leaves, grads, strict=True)), f"sample {i}", group)
    raise ValueError(f"the gradient of source {group} is not finite, though that of each sample alone is")


def _refuse_broken(grads: Mapping[str, Tensor | None], which: str, group: int) -> None:
    for name, grad in grads.items():
        if grad is not None and not bool(torch.isfinite(grad).all()):
            raise ValueError(
                f"the gradient of {which} of source {group} is not finite at {name}; drop the sample, or look for a "
                "division by zero or a fully masked softmax in the logp_fn"
            )


@contextmanager
def _requiring_grad(params: Mapping[str, Tensor]) -> Iterator[None]:
    frozen = [p for p in params.values() if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
