"""A model whose trunk is spread over several devices (FSDP2), and whole on each while every process works alone."""

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
"""The methods that run the trunk: what the ``forward`` of a plain module is."""


def shard(model: UnifiedModel, mesh: DeviceMesh) -> None:
    """Spreads the trunk over the devices of a mesh, block by block; what is frozen beside it stays whole on each.

    Weights that train are kept in float32 and computed with in the precision they had: bfloat16 would round an
    optimizer's small steps away. Forward and backward passes gather one block at a time, so that all processes have to
    make the same passes; ``whole`` frees them from that, and drawing, which would gather all blocks for each token,
    works under it alone.

    Args:
        model: The model; it is changed in place.
        mesh: Devices in one dimension.
    """
    computed_in = min({parameter.dtype for parameter in model.trunk.parameters()}, key=lambda dtype: dtype.itemsize)
    policy = MixedPrecisionPolicy(computed_in, torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        _widen(block)
        fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    _widen(model)
    frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    fully_shard(model, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=frozen)
    for name in PASSES:
        setattr(model, name, _own_memory(getattr(model, name)))
        register_fsdp_forward_method(model, name)


def is_sharded(model: UnifiedModel) -> bool:
    """Whether ``shard`` was called on a model."""
    return isinstance(model, FSDPModule)


@contextlib.contextmanager
def whole(model: UnifiedModel) -> Iterator[None]:
    """Runs the body with all weights on every process, so that each makes as many passes as its share of work takes.

    All processes have to enter and leave together, and train nothing in between. A model that is not sharded stays as
    it is.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    # tensors that are made in inference mode could not be trained with later
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


def _own_memory(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, never giving back a view: what FSDP hooks onto one is lost when it is changed in place."""

    @functools.wraps(run)
    def wrapped(*args: Any, **options: Any) -> Any:
        output = run(*args, **options)
        return output.clone() if isinstance(output, torch.Tensor) and output._is_view() else output

    return wrapped


def _widen(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
