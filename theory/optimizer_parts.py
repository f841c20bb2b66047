"""Split a step of SGD, Adam or AdamW into current gradient, momentum and weight decay.

The parts are computed from the optimizer's state before and after the step, so they include clipping and loss scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

Parts: TypeAlias = dict[str, dict[str, Tensor]]
"""Change by part of the step (``"gradient"``, ``"momentum"``, ``"weight_decay"``) and parameter name."""

_PARTS = ("gradient", "momentum", "weight_decay")


@dataclass(frozen=True)
class _Before:
    """State of a parameter before its next step."""

    value: Tensor
    has_grad: bool
    group: Mapping[str, Any]
    momentum: Tensor | None


class StepParts:
    """Splits one optimizer step into parts: create it before the step, call :meth:`parts` after.

    Args:
        optimizer: The optimizer. Only steps of SGD, Adam and AdamW can be split.
        params: The parameters whose step is split, by name.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor]) -> None:
        self._optimizer, self._params = optimizer, params
        self._before: dict[str, _Before] = {}
        names = {id(p): name for name, p in params.items()}
        buffer = "momentum_buffer" if type(optimizer) is torch.optim.SGD else "exp_avg"
        for group in optimizer.param_groups:
            settings = {key: value for key, value in group.items() if key != "params"}
            for p in group["params"]:
                if id(p) in names:
                    kept = optimizer.state.get(p, {}).get(buffer)
                    self._before[names[id(p)]] = _Before(
                        p.detach().clone(), p.grad is not None, settings, None if kept is None else kept.clone()
                    )

    def parts(self) -> Parts:
        """Return the parts of the last step, in float64; empty for an optimizer whose step cannot be split.

        Returns:
            Changes by part and parameter; the parts add up to the step.
        """
        split = {torch.optim.SGD: _sgd, torch.optim.Adam: _adam, torch.optim.AdamW: _adam}.get(type(self._optimizer))
        if split is None:
            return {}
        out: Parts = {part: {} for part in _PARTS}
        for name, p in self._params.items():
            before = self._before.get(name)
            if before is None or not before.has_grad:
                changes = (torch.zeros_like(p, dtype=torch.float64),) * 3
            else:
                changes = split(before, p.detach(), self._optimizer.state.get(p, {}))
            for part, change in zip(_PARTS, changes, strict=True):
                out[part][name] = change
        return out


def _adam(before: _Before, after: Tensor, state: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    group, value = before.group, before.value.double()
    (beta1, beta2), lr, decay = group["betas"], float(group["lr"]), float(group["weight_decay"])
    t = float(state["step"])
    moment = state["exp_avg"].double()
    remembered = torch.zeros_like(moment) if before.momentum is None else float(beta1) * before.momentum.double()
    square = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double()
    scale = -lr / (1 - float(beta1) ** t) / ((square / (1 - float(beta2) ** t)).sqrt() + group["eps"])
    if group.get("decoupled_weight_decay", False):
        return scale * (moment - remembered), scale * remembered, -lr * decay * value
    pulled = (1 - float(beta1)) * decay * value
    return scale * (moment - remembered - pulled), scale * remembered, scale * pulled


def _sgd(before: _Before, after: Tensor, state: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    group, value = before.group, before.value.double()
    lr, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
    fresh, remembered, ahead = 1.0, torch.zeros_like(value), 0.0
    if momentum and before.momentum is not None:
        fresh, remembered = 1 - float(group["dampening"]), momentum * before.momentum.double()
    if momentum and group["nesterov"]:
        ahead = 1.0
    # the step is -lr * (fresh * g + remembered), and with Nesterov -lr * (g + momentum * (fresh * g + remembered))
    per_gradient = fresh if not ahead else 1 + momentum * fresh
    per_memory = momentum if ahead else 1.0
    pulled = -lr * per_gradient * decay * value
    kept = -lr * per_memory * remembered
    return (after.double() - value) - kept - pulled, kept, pulled
