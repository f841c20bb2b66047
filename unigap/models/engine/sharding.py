"""Shard the trunk of a model over several devices (FSDP2), and gather it while each process works alone."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from unigap.models.base import UnifiedModel

PASSES = ("sample_images", "image_logps", "text_logps", "judge_logit")
"""The methods that run the trunk, as ``forward`` does in a plain module."""


def shard(model: UnifiedModel, mesh: DeviceMesh) -> None:
    """Shard the trunk over the devices of a mesh, block by block; frozen parameters stay replicated.

    Trainable weights are stored in float32, because bfloat16 would round small optimizer steps to zero, and computed
    with in their original precision. Forward and backward passes gather one block at a time, so all processes must make
    the same passes. Under ``whole`` they need not; sampling, which would gather all blocks for every token, works only
    there.

    Args:
        model: The model; changed in place.
        mesh: One-dimensional mesh of devices.
    """
    compute_dtype = min({parameter.dtype for parameter in model.trunk.parameters()}, key=lambda dtype: dtype.itemsize)
    policy = MixedPrecisionPolicy(compute_dtype, torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        _widen(block)
        fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    _widen(model)
    frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    fully_shard(model, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=frozen)
    for name in PASSES:
        setattr(model, name, _without_views(getattr(model, name)))
        register_fsdp_forward_method(model, name)


def is_sharded(model: UnifiedModel) -> bool:
    """Return whether ``shard`` was called on a model."""
    return isinstance(model, FSDPModule)


@contextlib.contextmanager
def whole(model: UnifiedModel) -> Iterator[None]:
    """Run the body with all weights gathered on every process, so that each makes its own number of passes.

    All processes must enter and leave together, without training in between. Does nothing to a model that is not
    sharded.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    # tensors created in inference mode could not be trained later
    with torch.inference_mode(False):
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def _without_views(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy instead of a view: an in-place op on a view would drop FSDP's hook."""

    @functools.wraps(run)
    def wrapped(*args: Any, **options: Any) -> Any:
        output = run(*args, **options)
        return output.clone() if isinstance(output, torch.Tensor) and output._is_view() else output

    return wrapped


def _widen(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
