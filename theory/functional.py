"""Per-sample gradients by ``torch.func``: vmap(grad) over ``functional_call``, in chunks of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from theory.conditions import watched_forward
from theory.contract import Source, checked_logps, detached_parameters, logp_at, sample_count
from theory.gradients import DenseGrads, Visit


def stream_func(
    model: nn.Module,
    sources: Sequence[Source],
    params: Mapping[str, Tensor],
    visit: Visit,
    dtype: torch.dtype,
    at: Mapping[str, Tensor] | None = None,
    chunk: int = 16,
) -> list[Tensor]:
    """Compute all per-sample gradients, then pass them to ``visit`` one parameter at a time.

    Memory: all gradients at once, samples times parameters.

    Args:
        model: The model. Its attention must allow vmap: eager, or sdpa with an explicit 4D mask.
        sources: Log-likelihoods and their batches.
        params: The selected parameters, by name.
        visit: Called with (name, gradients of all sources).
        dtype: Dtype of the gradients passed to ``visit``.
        at: Parameter values that replace the model's own, by name; None for none.
        chunk: Samples differentiated at a time.

    Returns:
        The log-likelihoods of each source, detached.

    Raises:
        ValueError: If the model cannot be vmapped.
    """
    logps, grads = [], []
    for group, source in enumerate(sources):
        logp, by_name = _source_gradients(model, source, group, params, at, chunk)
        logps.append(logp)
        grads.append(by_name)
    for name in params:
        visit(name, DenseGrads([by_name.pop(name).to(dtype) for by_name in grads]))
    return logps


def _source_gradients(
    model: nn.Module,
    source: Source,
    group: int,
    params: Mapping[str, Tensor],
    at: Mapping[str, Tensor] | None,
    chunk: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    logp_fn, batch = source
    n = sample_count(batch)
    values = detached_parameters(model, at)
    chosen = {name: values[name] for name in params}
    leaves, spec = tree_flatten(batch)
    batched = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def one_logp(replaced: dict[str, Tensor], tensors: list[Tensor]) -> Tensor:
        filled: list[Any] = list(leaves)
        for i, tensor in zip(batched, tensors, strict=True):
            filled[i] = tensor.unsqueeze(0)
        logp = logp_at(model, {**values, **replaced}, (logp_fn, tree_unflatten(filled, spec)))
        if logp.shape != (1,):
            raise ValueError(
                f"the logp_fn of source {group} returned shape {tuple(logp.shape)} for 1 sample; return shape (1,)"
            )
        return logp.squeeze(0)

    # evaluate one sample without vmap first: vmap would hide a wrong shape
    with torch.no_grad(), watched_forward(model):
        checked_logps(logp_at(model, values, (logp_fn, _first(leaves, spec, batched))), 1, group)
    try:
        per_sample = vmap(grad_and_value(one_logp), in_dims=(None, 0), chunk_size=chunk)
        grads, logps = per_sample(chosen, [leaves[i] for i in batched])
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"source {group} cannot be differentiated under vmap ({str(error).splitlines()[0]}); load the model with "
            'attn_implementation="eager" and no cache or checkpointing, or use method="hooks", or "loop" if that is '
            "refused too"
        ) from error
    return checked_logps(logps.detach(), n, group), {name: g.detach().reshape(n, -1) for name, g in grads.items()}


def _first(leaves: list[Any], spec: Any, batched: list[int]) -> Any:
    return tree_unflatten([leaf[:1] if i in batched else leaf for i, leaf in enumerate(leaves)], spec)
