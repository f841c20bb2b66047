"""Checkpoints of sharded models in which each process writes and reads its own shards."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.tensor import DTensor

from unigap.files.durable import make_folder
from unigap.files.torch_file import read_torch, write_torch
from unigap.models.files.shards import MARK, SHARDS, is_mark, read_shard, split_off, write_shard

PREFIX = "shards-"
"""Beginning of the name of a folder of shards, next to the checkpoint."""


class ShardedFiles(ModelParallelStrategy):
    """Lightning's strategy, with checkpoints of one small file and a folder with one file of each process.

    A checkpoint takes effect when its small file is renamed, which names the folder. If ``save_distributed_checkpoint``
    is false, the first process gathers everything into one file instead.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write the shards of this process and, on the first one, the rest; all processes must call it."""
        if not self._save_distributed_checkpoint:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        path, token = Path(self.broadcast(filepath)), self.broadcast(secrets.token_hex(4))
        folder, found = path.parent / f"{PREFIX}{token}", list[DTensor]()
        rest = split_off(checkpoint, found)
        make_folder(folder)
        write_shard(folder, self.global_rank, found)
        self.barrier()
        if self.is_global_zero:
            write_torch(rest | {SHARDS: {"folder": folder.name, "files": self.world_size}}, path)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Restore model and optimizer; return the rest."""
        path = Path(self.broadcast(checkpoint_path))
        content: dict[str, Any] = read_torch(path, weights_only is not False)
        if SHARDS not in content:
            return super().load_checkpoint(path, weights_only)
        parts = read_shard(path.parent / content[SHARDS]["folder"], self.global_rank)["parts"]
        assert self.lightning_module is not None
        _restore(self.lightning_module.state_dict(), content.pop("state_dict"), parts)
        # only fit has optimizers
        for optimizer, stored in zip(self.optimizers, content["optimizer_states"], strict=False):
            state: Any = get_optimizer_state_dict(self.lightning_module, optimizer)
            _restore(state["state"], stored["state"], parts)
            state["param_groups"] = stored["param_groups"]
            set_optimizer_state_dict(self.lightning_module, optimizer, state)
        return content

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Remove a checkpoint and its shards."""
        super().remove_checkpoint(filepath)
        if self.is_global_zero:
            remove_unused_shards(Path(filepath).parent)


@torch.no_grad()
def _restore(own: dict[str, Any], stored: dict[str, Any], parts: list[torch.Tensor]) -> None:
    """Copy stored values into tensors of the same names, at any depth."""
    for name, value in stored.items():
        if is_mark(value):
            own[name].to_local().copy_(parts[value[MARK]])
        elif isinstance(value, dict):
            _restore(own[name], value, parts)
        elif isinstance(value, torch.Tensor):
            own[name].copy_(value)
        else:
            own[name] = value


def save_in_shards(trainer: Trainer) -> None:
    """Make a sharded trainer use `ShardedFiles`."""
    strategy: Any = trainer.strategy
    if type(strategy) is ModelParallelStrategy:
        strategy.__class__ = ShardedFiles


def remove_unused_shards(folder: Path) -> None:
    """Remove the shards next to checkpoints that no checkpoint names, such as those of a replaced one.

    Removes nothing if a checkpoint cannot be read.
    """
    present = list(folder.glob(f"{PREFIX}*"))
    try:
        contents = [read_torch(path) for path in folder.glob("*.ckpt")] if present else []
        used = {content[SHARDS]["folder"] for content in contents if SHARDS in content}
    except Exception:  # a file of another origin; torch's errors have no common class
        return
    for shards in present:
        if shards.name not in used:
            shutil.rmtree(shards)
