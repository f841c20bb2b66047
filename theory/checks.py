"""The self-check: per-sample gradients against plain autograd, sample by sample, before they are believed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from theory.contract import Source, checked_logps, checked_sources, sample_count, take
from theory.gradients import ParamGrads, product_dtype
from theory.methods import Method, stream
from theory.selection import Select, select_parameters

_GOLDEN = 0.6180339887498949
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}


@dataclass(frozen=True)
class CheckReport:
    """Outcome of a self-check.

    Attributes:
        method: The method checked.
        error: Distance from autograd by parameter, relative to the larger of the parameter's gradient and a
            hundredth of the whole gradient.
        tolerance: The distance that would have raised.
    """

    method: Method
    error: Mapping[str, float]
    tolerance: float


_PASSED: weakref.WeakKeyDictionary[nn.Module, weakref.WeakKeyDictionary[Any, set[Any]]] = weakref.WeakKeyDictionary()


def self_check(
    model: nn.Module, sources: Sequence[Source], select: Select = None, method: Method = "auto"
) -> CheckReport:
    """Compares a method with plain autograd on the first and last sample of each source.

    The reference differentiates each sample alone, on the model itself. A weighted sum of per-sample gradients, with a
    different weight for each sample, must equal it parameter by parameter. This catches a weight used outside its
    layer's call (``F.linear(x, layer.weight)``), tied weights that hooks cannot see, inputs changed in place, gradients
    credited to the wrong sample, and samples that influence one another.

    Args:
        model: The model, in eval mode.
        sources: Log-likelihoods and their batches.
        select: Which parameters.
        method: The method to check.

    Returns:
        The errors by parameter.

    Raises:
        ValueError: If the method is wrong on this model; the message names the parameter or sample and the remedy.
    """
    sources = checked_sources(sources)
    refuse_training_layers(model)
    params = select_parameters(model, select)
    probes = [(fn, take(batch, _ends(sample_count(batch)))) for fn, batch in sources]
    weights = [
        [(-1) ** i * (1 + _GOLDEN * (g + 2 * i)) for i in range(sample_count(b))] for g, (_, b) in enumerate(probes)
    ]
    tolerance = max(_TOLERANCE.get(p.dtype, 2e-3) for p in params.values())
    reference = _reference(model, probes, weights, params, tolerance)
    dtype = product_dtype(params, None)
    sums: dict[str, Tensor] = {}

    def add_up(name: str, grads: ParamGrads) -> None:
        rows = [
            grads.weighted_sum(g, torch.tensor(w, dtype=dtype, device=params[name].device))
            for g, w in enumerate(weights)
        ]
        sums[name] = torch.stack(rows).sum(0)

    stream(model, probes, params, add_up, dtype, method)
    floor = 1e-2 * torch.stack([g.norm() for g in reference.values()]).norm()
    error = {
        name: float((sums.get(name, torch.zeros_like(ref)) - ref).norm() / torch.maximum(ref.norm(), floor))
        for name, ref in reference.items()
    }
    worst = max(error, key=lambda name: error[name])
    if not error[worst] <= tolerance:
        raise ValueError(_mismatch(worst, error[worst], method))
    return CheckReport(method, error, tolerance)


def check_once(model: nn.Module, sources: Sequence[Source], select: Select, method: Method) -> None:
    """Runs :func:`self_check` the first time a model, log-likelihood, selection and method come together."""
    names = tuple(select_parameters(model, select))
    passed = _PASSED.setdefault(model, weakref.WeakKeyDictionary())
    fresh = [(fn, batch) for fn, batch in sources if (names, method, sample_count(batch) > 1) not in _seen(passed, fn)]
    if not fresh:
        return
    self_check(model, sources, select, method)
    for fn, batch in fresh:
        _seen(passed, fn).add((names, method, sample_count(batch) > 1))


def refuse_training_layers(model: nn.Module) -> None:
    """Refuses layers that make a log-likelihood random or dependent on the rest of the batch.

    Raises:
        ValueError: If a batch norm or an active dropout is in training mode.
    """
    for name, module in model.named_modules():
        coupled = isinstance(module, nn.modules.batchnorm._BatchNorm)
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (coupled or random):
            what = "mixes the samples of a batch" if coupled else "draws at random"
            raise ValueError(
                f"layer {name} ({type(module).__name__}) is in training mode and {what}; call model.eval()"
            )


def _seen(passed: weakref.WeakKeyDictionary[Any, set[Any]], fn: Any) -> set[Any]:
    # a bound method is a new object at each access; its function is not
    return passed.setdefault(getattr(fn, "__func__", fn), set())


def _ends(n: int) -> list[int]:
    return [0] if n == 1 else [0, n - 1]


def _reference(
    model: nn.Module, probes: list[Source], weights: list[list[float]], params: Mapping[str, Tensor], tolerance: float
) -> dict[str, Tensor]:
    """Weighted sum of each sample's own gradient, by plain autograd, flattened."""
    total = {
        name: torch.zeros(p.numel(), dtype=product_dtype(params, None), device=p.device) for name, p in params.items()
    }
    reached = False
    with torch.enable_grad(), _requiring_grad(params):
        for group, (fn, batch) in enumerate(probes):
            n = sample_count(batch)
            with torch.no_grad():
                together = checked_logps(fn(model, batch), n, group)
            for i, weight in enumerate(weights[group]):
                alone = checked_logps(fn(model, take(batch, [i])), 1, group)
                which = "first" if i == 0 else "last"
                _refuse_coupling(alone[0].detach(), together[i], group, which, tolerance)
                if not alone.requires_grad:
                    continue
                reached = True
                grads = torch.autograd.grad(alone[0], list(params.values()), allow_unused=True)
                for name, grad in zip(params, grads, strict=True):
                    if grad is not None and not bool(torch.isfinite(grad).all()):
                        raise ValueError(
                            f"the gradient of the {which} sample of source {group} is not finite at {name}; drop the "
                            "sample, or look for a division by zero or a fully masked softmax in the logp_fn"
                        )
                    if grad is not None:
                        total[name] += weight * grad.reshape(-1)
    if not reached:
        raise ValueError(
            "no log-likelihood depends on a selected parameter; "
            "widen select=, or remove torch.no_grad and detach from the logp_fn"
        )
    return total


def _refuse_coupling(alone: Tensor, together: Tensor, group: int, which: str, tolerance: float) -> None:
    if abs(float(alone - together)) > tolerance * max(1.0, abs(float(together))):
        raise ValueError(
            f"the {which} sample of source {group} has log-likelihood {float(alone):.6g} alone and "
            f"{float(together):.6g} beside another; samples must not influence one another: call model.eval(), and "
            "take means and norms over the batch out of the logp_fn"
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


def _mismatch(name: str, error: float, method: Method) -> str:
    return (
        f"self-check: the per-sample gradients of {name} by method {method!r} are off by {error:.2g} from autograd. "
        "Is its weight used outside its own layer's call, as in F.linear(x, layer.weight) or x @ embedding.weight.T, "
        "or held by the logp_fn itself? Call the layer, or "
        + ("let the logp_fn read it from the model it is given." if method == "func" else 'use method="func".')
    )
