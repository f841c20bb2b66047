"""Directional derivatives of log-likelihoods along a change of the parameters, in forward and reverse mode."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import jvp

from theory.checks import check_once, checked_stream
from theory.conditions import require_conditions, watched_forward
from theory.contract import Source, checked_logps, checked_sources, detached_parameters, logp_at, sample_count
from theory.gradients import ParamGrads, product_dtype
from theory.selection import Select, Selection

Direction: TypeAlias = Literal["jvp", "reverse"]
"""``"jvp"`` is forward-mode ``torch.func.jvp``: least memory, but attention must be eager or the math kernel.
``"reverse"`` contracts each layer's input and output gradient with the change: it works with fused attention."""


def directional(
    model: nn.Module,
    sources: Sequence[Source],
    delta: Mapping[str, Tensor],
    method: Direction = "jvp",
    at: Mapping[str, Tensor] | None = None,
    check: bool = True,
) -> Tensor:
    """Predict the change of every log-likelihood when the parameters move by ``delta``: <grad logp_i, delta>.

    When to use it: for one known change, such as an optimizer step. It needs no kernel, and its cost does not grow with
    the number of pairs. ``"jvp"`` costs about two forward passes and their memory; ``"reverse"`` a forward and a
    backward pass, and as much again for the check.

    Args:
        model: The model, in eval mode.
        sources: Log-likelihoods and their batches.
        delta: Change by parameter name, in the parameter's shape; the other parameters do not change.
        method: Forward or reverse mode.
        at: Parameter values at which to differentiate, by name; None for the model's own.
        check: With ``"reverse"``, compare with plain autograd, as :func:`theory.gram` does.

    Returns:
        Predicted changes, shape (N,), in nats; samples in the order of the sources.

    Raises:
        ValueError: If ``delta`` is empty, names an unknown parameter or has a wrong shape; if an operation
            has no forward mode; or if the result could not be trusted.
    """
    if method not in ("jvp", "reverse"):
        raise ValueError(f"unknown method {method!r}; available: jvp, reverse")
    sources = checked_sources(sources)
    require_conditions(model)
    checked_delta(model, delta)
    if method == "jvp":
        return torch.cat([_forward_mode(model, source, group, delta, at) for group, source in enumerate(sources)])
    if check:
        check_once(model, sources, exactly(delta), "hooks")
    return _reverse_mode(model, sources, delta, at, check)


def checked_delta(model: nn.Module, delta: Mapping[str, Tensor]) -> None:
    """Check a parameter change against the model's names and shapes.

    Raises:
        ValueError: On an empty change, an unknown name or a wrong shape.
    """
    params = dict(model.named_parameters())
    if not delta:
        raise ValueError("delta is empty; name at least one parameter")
    for name, change in delta.items():
        if name not in params:
            raise ValueError(
                f"delta names {name!r}, which is no parameter of the model (name a tied one by its first name)"
            )
        if change.shape != params[name].shape:
            raise ValueError(f"delta of {name} has shape {tuple(change.shape)}; it needs {tuple(params[name].shape)}")


def exactly(names: Mapping[str, Tensor]) -> Select:
    """Return the selection of exactly these parameters; a bracket in a name is no pattern."""
    return Selection(include=tuple(name.replace("[", "[[]") for name in names))


def _forward_mode(
    model: nn.Module, source: Source, group: int, delta: Mapping[str, Tensor], at: Mapping[str, Tensor] | None
) -> Tensor:
    values = detached_parameters(model, at)
    primal = {name: values[name] for name in delta}
    tangent = {name: change.detach().to(values[name]) for name, change in delta.items()}

    def logps(replaced: dict[str, Tensor]) -> Tensor:
        return logp_at(model, {**values, **replaced}, source)

    try:
        with warnings.catch_warnings(), watched_forward(model):
            # torch compiles its forward-mode rules with torch.jit on first use, which warns
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
            value, change = jvp(logps, (primal,), (tangent,))[:2]
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"source {group} has no forward-mode derivative ({str(error).splitlines()[0]}); load the model with "
            'attn_implementation="eager", or use method="reverse"'
        ) from error
    checked_logps(value, sample_count(source[1]), group)
    out: Tensor = change.detach()
    return out


def _reverse_mode(
    model: nn.Module,
    sources: Sequence[Source],
    delta: Mapping[str, Tensor],
    at: Mapping[str, Tensor] | None,
    check: bool,
) -> Tensor:
    named = dict(model.named_parameters())
    params: dict[str, Tensor] = {name: named[name] for name in delta}
    dtype = product_dtype(params, None)
    device = next(iter(params.values())).device
    changes = [torch.zeros(sample_count(batch), dtype=dtype, device=device) for _, batch in sources]

    def add_up(name: str, grads: ParamGrads) -> None:
        for group, change in enumerate(changes):
            change += grads.dot(group, delta[name].detach())

    groups = range(len(sources)) if check else ()
    checked_stream(model, sources, params, add_up, dtype, "hooks", groups, at)
    return torch.cat(changes)
