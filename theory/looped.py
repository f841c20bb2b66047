"""Per-sample gradients by one plain backward pass per sample: slow, but without assumptions about the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from theory.conditions import watched_forward
from theory.contract import Source, checked_logps, detached_parameters, logp_at, sample_count, take
from theory.gradients import DenseGrads, Visit


def stream_loop(
    model: nn.Module,
    sources: Sequence[Source],
    params: Mapping[str, Tensor],
    visit: Visit,
    dtype: torch.dtype,
    at: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Compute all per-sample gradients one by one, then pass them to ``visit`` one parameter at a time.

    Memory: all gradients at once, samples times parameters.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches.
        params: The selected parameters, by name.
        visit: Called with (name, gradients of all sources).
        dtype: Dtype of the gradients passed to ``visit``.
        at: Parameter values that replace the model's own, by name; None for none.

    Returns:
        The log-likelihoods of each source, detached.
    """
    values = detached_parameters(model, at)
    chosen = {name: values[name].requires_grad_() for name in params}
    logps: list[Tensor] = []
    rows: dict[str, list[Tensor]] = {name: [] for name in params}
    with torch.enable_grad(), watched_forward(model):
        for group, (fn, batch) in enumerate(sources):
            n = sample_count(batch)
            grads = {name: torch.zeros(n, p.numel(), dtype=dtype, device=p.device) for name, p in params.items()}
            alone = []
            for i in range(n):
                logp = checked_logps(logp_at(model, values, (fn, take(batch, [i]))), 1, group)
                alone.append(logp.detach())
                if logp.requires_grad:
                    found = torch.autograd.grad(logp[0], list(chosen.values()), allow_unused=True)
                    for name, grad in zip(params, found, strict=True):
                        if grad is not None:
                            grads[name][i] = grad.reshape(-1)
            logps.append(torch.cat(alone))
            for name, of_source in grads.items():
                rows[name].append(of_source)
    for name in params:
        visit(name, DenseGrads(rows.pop(name)))
    return logps
