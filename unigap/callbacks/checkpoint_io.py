"""How Lightning writes and reads checkpoint files: with no second copy of the weights in memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer

from unigap.files.durable import make_folder
from unigap.files.torch_file import read_torch, write_torch
from unigap.models.files.frozen_base import STATES
from unigap.models.files.shards import SHARDS, in_one_piece


class StreamedCheckpoints(CheckpointIO):
    """Write a checkpoint tensor by tensor; read its weights through a memory map.

    Lightning's own plugin builds the whole file in memory first, and reads the whole file into memory. It still serves
    paths with a URL scheme.
    """

    def __init__(self) -> None:
        self._remote = TorchCheckpointIO()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, durably and atomically."""
        if storage_options is not None or _is_remote(path):
            self._remote.save_checkpoint(checkpoint, path, storage_options)
            return
        make_folder(Path(path).parent)
        write_torch(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; only the weights stay in the file, which later saves may replace.

        Shards, which another strategy saved, are put together.
        """
        if _is_remote(path):
            return self._remote.load_checkpoint(path, weights_only=weights_only)
        content = read_torch(Path(path), weights_only is not False)
        if SHARDS in content:
            return in_one_piece(content, Path(path).parent)
        weights = {key: content[key] for key in STATES if key in content}
        # optimizer and callbacks keep the tensors they are given, and would keep a replaced file on the disk
        rest = copy.deepcopy({key: value for key, value in content.items() if key not in weights})
        return {key: weights[key] if key in weights else rest[key] for key in content}

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint file, if it exists."""
        self._remote.remove_checkpoint(path)


def stream_checkpoints(trainer: Trainer) -> None:
    """Make a trainer use `StreamedCheckpoints`, unless the user chose another plugin."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = StreamedCheckpoints()


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)
