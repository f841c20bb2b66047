"""Comparison of per-sample gradients with plain autograd.

The first use of a method is compared sample by sample, and every call over the whole batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from theory.conditions import require_conditions
from theory.contract import Source, checked_sources, sample_count, take
from theory.gradients import ParamGrads, Visit, product_dtype
from theory.methods import Method, stream
from theory.reference import Reference, sample_by_sample, tolerance_of, whole_batch
from theory.selection import Select, select_parameters


@dataclass(frozen=True)
class CheckReport:
    """Outcome of a self-check.

    Attributes:
        method: The method checked.
        error: Relative error by parameter: distance from autograd, divided by the norm of the parameter's gradient or
            by a hundredth of the norm of the whole gradient, whichever is larger.
        tolerance: Largest error that passes.
    """

    method: Method
    error: Mapping[str, float]
    tolerance: float


_INNER_ROUNDING = 1e-5
"""Relative error allowed to float64 models that compute norms and softmax in float32, as transformers' models do.
Sample weights change how the gradients that pass through are rounded."""

_PASSED: weakref.WeakKeyDictionary[nn.Module, weakref.WeakKeyDictionary[Any, set[Any]]] = weakref.WeakKeyDictionary()


def self_check(
    model: nn.Module, sources: Sequence[Source], select: Select = None, method: Method = "auto"
) -> CheckReport:
    """Compare a method with plain autograd on the first and last sample of each source.

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
        The report.

    Raises:
        ValueError: If the method is wrong on this model; the message names the parameter or sample and the remedy.
    """
    sources = checked_sources(sources)
    require_conditions(model)
    params = select_parameters(model, select)
    probes = [(fn, take(batch, _ends(sample_count(batch)))) for fn, batch in sources]
    comparison = _Comparison(sample_by_sample(model, probes, params), range(len(probes)), tolerance_of(params))
    stream(model, probes, params, comparison.watching(lambda name, grads: None), product_dtype(params, None), method)
    return comparison.report(method)


def check_once(model: nn.Module, sources: Sequence[Source], select: Select, method: Method) -> None:
    """Run :func:`self_check` once for each combination of model, log-likelihood, selection and method."""
    names = tuple(select_parameters(model, select))
    passed = _PASSED.setdefault(model, weakref.WeakKeyDictionary())
    fresh = [(fn, batch) for fn, batch in sources if (names, method, sample_count(batch) > 1) not in _seen(passed, fn)]
    if not fresh:
        return
    self_check(model, sources, select, method)
    for fn, batch in fresh:
        _seen(passed, fn).add((names, method, sample_count(batch) > 1))


def checked_stream(
    model: nn.Module,
    sources: Sequence[Source],
    params: Mapping[str, Tensor],
    visit: Visit,
    dtype: torch.dtype,
    method: Method,
    groups: Sequence[int],
    at: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Stream per-sample gradients as :func:`theory.methods.stream` does, and compare each whole batch with autograd.

    If a layer mixes rows of several samples (a routed expert, a packed sequence), its rows can be credited to the right
    samples in one batch and to the wrong ones in the next. So a check of an earlier batch is not enough.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches.
        params: The selected parameters, by name.
        visit: Called with (name, gradients of all sources).
        dtype: Dtype of the gradients passed to ``visit``.
        method: How the gradients are computed.
        groups: Indices of the sources to compare; empty for no check.
        at: Parameter values that replace the model's own, by name; None for none.

    Returns:
        The log-likelihoods of each source, detached.

    Raises:
        ValueError: If gradients or log-likelihoods differ from autograd's.
    """
    if not groups:
        return stream(model, sources, params, visit, dtype, method, at)
    reference = whole_batch(model, [sources[g] for g in groups], params, at)
    comparison = _Comparison(reference, groups, max(_INNER_ROUNDING, tolerance_of(params)))
    values = stream(model, sources, params, comparison.watching(visit), dtype, method, at)
    comparison.compare_values(values, method)
    comparison.report(method)
    return values


class _Comparison:
    """Compare a method's weighted sums of per-sample gradients with a reference.

    Args:
        reference: Plain autograd on some sources.
        groups: Indices of these sources among the streamed ones.
        tolerance: Largest relative error that passes.
    """

    def __init__(self, reference: Reference, groups: Sequence[int], tolerance: float) -> None:
        self._reference, self._groups, self._tolerance = reference, groups, tolerance
        self._floor = 1e-2 * torch.stack([total.norm() for total in reference.sums.values()]).norm()
        # a parameter that the method never visits has a gradient of zero
        self._error = {name: self._distance(total, torch.zeros_like(total)) for name, total in reference.sums.items()}

    def watching(self, visit: Visit) -> Visit:
        """Wrap a visitor: compare the gradients, then pass them on."""

        def compare(name: str, grads: ParamGrads) -> None:
            weights = zip(self._groups, self._reference.weights, strict=True)
            total = torch.stack([grads.weighted_sum(group, weight) for group, weight in weights]).sum(0)
            self._error[name] = self._distance(self._reference.sums[name], total)
            visit(name, grads)

        return compare

    def report(self, method: Method) -> CheckReport:
        """Return the errors by parameter.

        Raises:
            ValueError: If one is above the tolerance.
        """
        worst = max(self._error, key=lambda name: self._error[name])
        if not self._error[worst] <= self._tolerance:
            raise ValueError(_mismatch(worst, self._error[worst], method))
        return CheckReport(method, self._error, self._tolerance)

    def compare_values(self, values: Sequence[Tensor], method: Method) -> None:
        """Compare log-likelihoods.

        Raises:
            ValueError: If one differs by more than the tolerance.
        """
        for group, expected in zip(self._groups, self._reference.values, strict=True):
            off = (values[group] - expected).abs() > self._tolerance * expected.abs().clamp_min(1)
            if bool(off.any()):
                i = int(off.nonzero()[0, 0])
                raise ValueError(
                    f"self-check: the log-likelihood of sample {i} of source {group} is {float(values[group][i]):.6g} "
                    f"by method {method!r} and {float(expected[i]):.6g} by autograd. Does the model sum or count the "
                    'rows of a tensor that all samples share? Use method="func" or "loop".'
                )

    def _distance(self, expected: Tensor, found: Tensor) -> float:
        scale = torch.maximum(expected.norm(), self._floor.to(expected))
        return float((found.to(expected) - expected).norm() / scale.clamp_min(torch.finfo(expected.dtype).tiny))


def _seen(passed: weakref.WeakKeyDictionary[Any, set[Any]], fn: Any) -> set[Any]:
    # a bound method is a new object at each access; its function is not
    return passed.setdefault(getattr(fn, "__func__", fn), set())


def _ends(n: int) -> list[int]:
    return [0] if n == 1 else [0, n - 1]


def _mismatch(name: str, error: float, method: Method) -> str:
    wrong = (
        f"self-check: the per-sample gradients of {name} by method {method!r} are off by {error:.2g} from autograd. "
    )
    if method in ("func", "loop"):
        return wrong + (
            "Does the logp_fn hold its weight itself? Call the layer, or read it from the model passed to the logp_fn. "
            "Or do samples of this batch influence one another? Remove means and norms over the batch from the logp_fn."
        )
    return wrong + (
        "Is its weight used outside its own layer's call, as in F.linear(x, layer.weight) or x @ embedding.weight.T, "
        'or held by the logp_fn? Call the layer, or use method="func". Does its layer mix rows of several samples, as '
        'an expert that tokens are routed to or a packed sequence does? Use method="loop".'
    )
