"""Conditions for differentiating a log-likelihood: gradients enabled, full precision, no randomness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def require_conditions(model: nn.Module) -> None:
    """Refuse a model or a context in which per-sample gradients are wrong or impossible.

    Raises:
        ValueError: If a batch norm or an active dropout is in training mode, inference mode or autocast is on, or a
            parameter was created under inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "torch.inference_mode() is on, which disables gradients; call this outside of it (torch.no_grad() is fine)"
        )
    for name, p in model.named_parameters():
        if p.is_inference():
            raise ValueError(
                f"parameter {name} was made under torch.inference_mode() and cannot have a gradient; "
                "build or load the model outside of it"
            )
        if torch.is_autocast_enabled(p.device.type):
            raise ValueError(_autocast("this code", p.device.type))
    _refuse_training_layers(model)


@contextmanager
def watched_forward(model: nn.Module) -> Iterator[None]:
    """Refuse forward passes that use random numbers or run a layer under autocast.

    Functional dropout, such as ``attention_dropout`` in transformers, is not a layer and can be detected only here.

    Args:
        model: The model that runs inside the block.

    Raises:
        ValueError: If a layer is called under autocast, or, at the end, if the global random state has changed.
    """
    handles = [
        module.register_forward_pre_hook(partial(_refuse_autocast, name, p.device.type))
        for name, module in model.named_modules()
        for p in [next(module.parameters(recurse=False), None)]
        if p is not None
    ]
    before = _random_states(model)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if any(not torch.equal(old, new) for old, new in zip(before, _random_states(model), strict=True)):
        raise ValueError(_randomness(model))


def _refuse_training_layers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        coupled = isinstance(module, nn.modules.batchnorm._BatchNorm)
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (coupled or random):
            what = "mixes the samples of a batch" if coupled else "uses random numbers"
            raise ValueError(
                f"layer {name} ({type(module).__name__}) is in training mode and {what}; call model.eval()"
            )


def _refuse_autocast(name: str, device: str, module: nn.Module, args: Any) -> None:
    if torch.is_autocast_enabled(device):
        raise ValueError(_autocast(f"layer {name}", device))


def _autocast(where: str, device: str) -> str:
    dtype = torch.get_autocast_dtype(device)
    return (
        f"{where} runs under torch.autocast({device!r}, {dtype}), which rounds gradients to {dtype}; leave "
        f"autocast, or wrap the logp_fn's body in torch.autocast({device!r}, enabled=False)"
    )


def _random_states(model: nn.Module) -> list[Tensor]:
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def _randomness(model: nn.Module) -> str:
    random = (
        "the log-likelihood draws from torch's global random generator, so its gradients differ from call to call; "
    )
    training = next((name or "the model" for name, module in model.named_modules() if module.training), None)
    if training is not None:
        return random + f"{training} is in training mode, which turns dropout on: call model.eval()"
    return random + "switch the randomness off, or let the logp_fn use a torch.Generator with a fixed seed"
