"""Split a step of SGD, Adam or AdamW into current gradient, momentum and weight decay.

The parts are read from the optimizer's state before and after the step, so clipping and loss scaling are in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

Parts: TypeAlias = dict[str, dict[str, Tensor]]
"""Part of the step by its name (``"gradient"``, ``"momentum"``, ``"weight_decay"``) and the parameter's name."""

_PARTS = ("gradient", "momentum", "weight_decay")


@dataclass(frozen=True)
class _Before:
    """State of a parameter before its next step."""

    value: Tensor
    moving: bool
    group: Mapping[str, Any]
    memory: Tensor | None


class StepParts:
    """Split one optimizer step into parts; make it before the step, read it after.

    Args:
        optimizer: The optimizer; other classes than SGD, Adam and AdamW are taken as a whole.
        params: The parameters to watch, by name.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor]) -> None:
        self._optimizer, self._params = optimizer, params
        self._before: dict[str, _Before] = {}
        names = {id(p): name for name, p in params.items()}
        memory = "momentum_buffer" if type(optimizer) is torch.optim.SGD else "exp_avg"
        for group in optimizer.param_groups:
            settings = {key: value for key, value in group.items() if key != "params"}
            for p in group["params"]:
                if id(p) in names:
                    kept = optimizer.state.get(p, {}).get(memory)
                    self._before[names[id(p)]] = _Before(
                        p.detach().clone(), p.grad is not None, settings, None if kept is None else kept.clone()
                    )

    def parts(self) -> Parts:
        """The parts of the step just taken, in float64; empty for an optimizer whose step is not known.

        Returns:
            Changes by part and parameter; over the parts they add up to the step.
        """
        split = {torch.optim.SGD: _sgd, torch.optim.Adam: _adam, torch.optim.AdamW: _adam}.get(type(self._optimizer))
        if split is None:
            return {}
        out: Parts = {part: {} for part in _PARTS}
        for name, p in self._params.items():
            before = self._before.get(name)
            if before is None or not before.moving:
                pieces = (torch.zeros_like(p, dtype=torch.float64),) * 3
            else:
                pieces = split(before, p.detach(), self._optimizer.state.get(p, {}))
            for part, piece in zip(_PARTS, pieces, strict=True):
                out[part][name] = piece
        return out


def _adam(before: _Before, after: Tensor, state: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    group, value = before.group, before.value.double()
    (beta1, beta2), lr, decay = group["betas"], float(group["lr"]), float(group["weight_decay"])
    t = float(state["step"])
    moment = state["exp_avg"].double()
    remembered = torch.zeros_like(moment) if before.memory is None else float(beta1) * before.memory.double()
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
    if momentum and before.memory is not None:
        fresh, remembered = 1 - float(group["dampening"]), momentum * before.memory.double()
    if momentum and group["nesterov"]:
        ahead = 1.0
    # the step is -lr * (fresh * g + remembered), and with Nesterov -lr * (g + momentum * (fresh * g + remembered))
    per_gradient = fresh if not ahead else 1 + momentum * fresh
    per_memory = momentum if ahead else 1.0
    pulled = -lr * per_gradient * decay * value
    kept = -lr * per_memory * remembered
    return (after.double() - value) - kept - pulled, kept, pulled
