"""The contract ``logp_fn(model, batch) -> Tensor[n]`` that every function of this package uses, and its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import is_dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import keystr, tree_leaves, tree_leaves_with_path, tree_map

LogpFn: TypeAlias = Callable[[Any, Any], Tensor]
"""Log-likelihood of every sample of a batch, in nats, shape (n,), differentiable; row i depends on sample i only."""

Source: TypeAlias = tuple[LogpFn, Any]
"""A log-likelihood and the batch it is evaluated on. The batch is a tensor, or any nest of dict, list and tuple of
tensors, whose first axis counts the samples. A single number, string or None is passed on unchanged; a list of them is
refused, because samples could not be picked out of it."""


class _Bound(nn.Module):
    """Model and log-likelihood as one module, so that ``functional_call`` can replace the model's parameters."""

    def __init__(self, model: nn.Module, logp_fn: LogpFn) -> None:
        super().__init__()
        self.model = model
        self.logp_fn = logp_fn

    def forward(self, batch: Any) -> Tensor:
        return self.logp_fn(self.model, batch)


def logp_at(model: nn.Module, params: Mapping[str, Tensor], source: Source) -> Tensor:
    """Evaluate a log-likelihood with some of the model's parameters replaced.

    Args:
        model: The model; unchanged.
        params: New values by parameter name. A tied parameter is replaced everywhere.
        source: Log-likelihood and batch of n samples.

    Returns:
        Log-likelihoods, shape (n,).
    """
    logp_fn, batch = source
    swapped = {f"model.{slot}": params[name] for slot, name in parameter_slots(model).items() if name in params}
    out: Tensor = functional_call(_Bound(model, logp_fn), swapped, (batch,), tie_weights=False)
    return out


def parameter_slots(model: nn.Module) -> dict[str, str]:
    """Return the name of the parameter in each slot, a dotted path of module and attribute.

    A tied parameter has several slots and one name, its first. A module registered under two names has one slot:
    ``functional_call`` would replace it twice and restore the replacement in the end, so ties are resolved here.

    Args:
        model: The model.

    Returns:
        Parameter name by slot.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{path}.{attr}" if path else attr: names[id(p)]
        for path, module in model.named_modules()
        for attr, p in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def sample_count(batch: Any) -> int:
    """Return the number of samples in a batch: the common first dimension of its tensors.

    Raises:
        ValueError: If the batch holds no tensor, is empty, its tensors disagree, or it holds a list of
            other values.
    """
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)}
    if not sizes:
        raise ValueError("the batch holds no tensor; pass a tensor, or a dict, list or tuple of tensors")
    _refuse_uncounted(batch)
    if len(sizes) > 1:
        raise ValueError(
            f"the tensors of one batch have first dimensions {sorted(sizes)}; the first axis must count the samples "
            "in each of them (expand shared tensors, or pass them in the logp_fn's closure)"
        )
    (n,) = sizes
    if n == 0:
        raise ValueError("the batch holds no sample; pass at least one")
    return int(n)


def _refuse_uncounted(batch: Any) -> None:
    """Refuse values that :func:`take` cannot pick samples out of and would pass on whole."""
    for path, leaf in tree_leaves_with_path(batch, is_leaf=_is_plain_sequence):
        if isinstance(leaf, Tensor | str) or not (isinstance(leaf, Sized) or is_dataclass(leaf)):
            continue
        inside = f" of {type(leaf[0]).__name__}" if isinstance(leaf, list | tuple) else ""
        raise ValueError(
            f"the batch{keystr(path)} is a {type(leaf).__name__}{inside}, which is no tensor, so samples cannot be "
            "picked out of it; make it a tensor or a dict of tensors, or, if it is the same for all samples, keep it "
            "in the logp_fn"
        )


def _is_plain_sequence(value: Any) -> bool:
    """Return whether a list or tuple holds single values only: no tensors and no containers."""
    if not isinstance(value, list | tuple) or not value or all(item is None for item in value):
        return False
    return not any(isinstance(item, Tensor | list | tuple | dict) for item in value)


def take(batch: Any, index: slice | Sequence[int]) -> Any:
    """Pick samples out of a batch, keeping its structure.

    Args:
        batch: Nest of tensors whose first axis counts the samples.
        index: The samples to keep.

    Returns:
        A batch of the same structure.
    """
    chosen = index if isinstance(index, slice) else list(index)
    return tree_map(lambda leaf: leaf[chosen] if isinstance(leaf, Tensor) else leaf, batch)


def checked_logps(logps: Any, n: int, group: int) -> Tensor:
    """Check a log-likelihood against the contract.

    Args:
        logps: The output of the ``logp_fn``.
        n: Number of samples in its batch.
        group: Index of the source in the caller's list, for the message.

    Returns:
        ``logps``, shape (n,).

    Raises:
        ValueError: If it is not a float tensor of shape (n,), or holds a value that is not finite.
    """
    if not isinstance(logps, Tensor) or not logps.is_floating_point():
        kind = f"a {logps.dtype} tensor" if isinstance(logps, Tensor) else type(logps).__name__
        raise ValueError(f"the logp_fn of source {group} returned {kind}; return a float tensor of shape ({n},)")
    if logps.shape != (n,):
        raise ValueError(
            f"the logp_fn of source {group} returned shape {tuple(logps.shape)} for {n} samples; "
            f"return one log-likelihood per sample, shape ({n},): sum over the tokens, not over the batch"
        )
    finite = torch.isfinite(logps.detach())
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0, 0])
        raise ValueError(
            f"the log-likelihood of sample {bad} of source {group} is {float(logps.detach()[bad])}; "
            "drop the sample, or look for a masked token among its targets or an overflow in low precision"
        )
    return logps


def checked_sources(sources: Sequence[Source]) -> list[Source]:
    """Check a list of sources against the contract.

    Returns:
        The sources; tensors created under inference mode are copied, because autograd cannot save them.

    Raises:
        ValueError: If the list is empty or an entry is not a pair of a callable and a batch.
    """
    if len(sources) == 0:
        raise ValueError("no source given; pass a list of (logp_fn, batch) pairs")
    for group, source in enumerate(sources):
        if not (isinstance(source, tuple) and len(source) == 2 and callable(source[0])):
            raise ValueError(f"source {group} is not a (logp_fn, batch) pair; pass [(logp_fn, batch), ...]")
        sample_count(source[1])
    return [(fn, tree_map(_outside_inference_mode, batch)) for fn, batch in sources]


def _outside_inference_mode(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def detached_parameters(model: nn.Module, at: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return all parameters detached, so that a graph holds only what a method differentiates.

    Args:
        model: The model.
        at: Parameter values that replace the model's own, by name; None for none.

    Returns:
        Tensors by parameter name.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}
    if at is not None:
        params.update({name: value.detach() for name, value in at.items() if name in params})
    return params
