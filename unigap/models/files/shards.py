"""Tensors of a checkpoint in files of the processes that hold them, and whole again.

Torch's own distributed checkpoint is not used: its index is a pickle that runs code when it is read, and its writer of
safetensors builds each process's file in memory first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from unigap.files.torch_file import read_torch, write_torch

SHARDS = "shards"
"""Key under which a checkpoint keeps the name of the folder of its shards and the number of files in it."""
MARK = "sharded tensor"
"""Key of the dictionary that stands for a sharded tensor; its value is the tensor's number."""


def split_off(content: Any, found: list[DTensor]) -> Any:
    """Return the content of a checkpoint with a mark for each sharded tensor, and append these to ``found``."""
    if isinstance(content, DTensor):
        found.append(content)
        return {MARK: len(found) - 1, "shape": list(content.shape)}
    return _rebuilt(content, lambda part: split_off(part, found))


def write_shard(folder: Path, rank: int, tensors: list[DTensor]) -> None:
    """Write the parts of sharded tensors that this process holds.

    Raises:
        OSError: The file cannot be written.
    """
    parts = [tensor.to_local() for tensor in tensors]
    content = {"folder": folder.name, "rank": rank, "parts": parts, "rows": [_first_row(tensor) for tensor in tensors]}
    write_torch(content, shard_file(folder, rank))


def read_shard(folder: Path, rank: int) -> dict[str, Any]:
    """Return the parts that a process wrote, ``parts``, and the first row of each in its tensor, ``rows``.

    Raises:
        ValueError: The file is missing, damaged or of another checkpoint.
    """
    path = shard_file(folder, rank)
    try:
        content: dict[str, Any] = read_torch(path)
        sound = content["folder"] == folder.name and content["rank"] == rank
    except Exception as error:  # damaged bytes raise exceptions without a common class
        raise ValueError(f"{path}: this part of a checkpoint is missing or damaged; take another checkpoint") from error
    if not sound:
        raise ValueError(f"{path} is a part of another checkpoint; put its own file back")
    return content


def gather(content: Any, folder: Path, count: int) -> Any:
    """Return a part of a checkpoint with its sharded tensors whole.

    Args:
        content: The part, as read from the checkpoint.
        folder: The folder of the shards.
        count: The number of files in it.

    Raises:
        ValueError: See `read_shard`.
    """
    shards = [read_shard(folder, rank) for rank in range(count)]

    def whole(part: Any) -> Any:
        if not is_mark(part):
            return _rebuilt(part, whole)
        number = part[MARK]
        tensor = torch.cat([s["parts"][number] for s in sorted(shards, key=lambda s: int(s["rows"][number]))])
        if list(tensor.shape) != part["shape"]:
            raise ValueError(f"{folder} holds other parts than its checkpoint names; take another checkpoint")
        return tensor

    return whole(content)


def in_one_piece(content: dict[str, Any], parent: Path) -> dict[str, Any]:
    """Return the content of a checkpoint in shards as one that was saved without.

    Args:
        content: The content.
        parent: The folder of the checkpoint.

    Raises:
        ValueError: See `read_shard`.
    """
    shards = content[SHARDS]
    rest = {key: value for key, value in content.items() if key != SHARDS}
    whole: dict[str, Any] = gather(rest, parent / shards["folder"], shards["files"])
    return whole | {"optimizer_states": [_numbered(state) for state in whole["optimizer_states"]]}


def _numbered(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer with numbers for the names of weights, as torch's optimizers have them."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    number = {name: at for at, name in enumerate(names)}
    groups = [group | {"params": [number[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {number[name]: value for name, value in state["state"].items()}, "param_groups": groups}


def is_mark(part: Any) -> bool:
    """Whether a part of a checkpoint stands for a sharded tensor."""
    return isinstance(part, dict) and MARK in part


def shard_file(folder: Path, rank: int) -> Path:
    """Return the file of a process."""
    return folder / f"rank-{rank:05d}.pt"


def _first_row(tensor: DTensor) -> int:
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    assert not any(offset[1:]), "FSDP2 shards along the first dimension"
    return offset[0]


def _rebuilt(content: Any, change: Callable[[Any], Any]) -> Any:
    """Return new containers with changed values."""
    if isinstance(content, dict):
        return {key: change(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(change(value) for value in content)
    return content
