"""Weights: read, put into a network, checked for finiteness, counted, and their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: The file is damaged or is not a safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def check_tensors(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Check that there are exactly the expected tensors.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape; names it.
    """
    for name in sorted({*expected, *state}):
        if name not in state or name not in expected:
            raise ValueError(f"the weights {name!r} are {'unknown' if name in state else 'missing'}")
        if state[name].shape != expected[name].shape:
            stored, described = tuple(state[name].shape), tuple(expected[name].shape)
            raise ValueError(f"the weights {name!r} have shape {stored}, the config says {described}")


def fill(net: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put exactly these tensors into a network on the meta device, and freeze it.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape.
    """
    check_tensors(net.state_dict(), state)
    net.load_state_dict(state, assign=True)
    net.requires_grad_(False)


def first_not_finite(weights: Mapping[str, Any]) -> str | None:
    """Return the name of the first floating-point tensor with a NaN or an infinity, ``None`` if all are finite."""
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    floats = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    return next((name for name, tensor in floats if not torch.isfinite(tensor.sum(dtype=torch.float64))), None)


def check_finite_weights(checkpoint: str, weights: Mapping[str, Any]) -> None:
    """Check that the weights of a checkpoint are finite.

    Raises:
        ValueError: One is not; names it.
    """
    broken = first_not_finite(weights)
    if broken:
        raise ValueError(
            f"checkpoint {checkpoint!r}: the weights {broken!r} are not finite; take an earlier checkpoint"
        )


def stored_numbers(folder: Path) -> int:
    """Return how many numbers the safetensors files of a folder hold, 0 if a file cannot be read."""
    count = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                count += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118 (no dict)
        except (SafetensorError, OSError):
            return 0  # loading the file reports the fault
    return count


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names and values of tensors; if one is sharded, all processes must call it."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        # copy: numpy would keep a reference, and the memory of gathered shards must be freed
        copy = unsharded(tensor.detach()).to("cpu", copy=True)
        sha.update(copy.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def unsharded(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full tensor; a sharded one is gathered, so all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
