"""Read a new checkpoint again before it replaces the last one, so that one that cannot be loaded is never kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from unigap.console.mistakes import shortened
from unigap.files.torch_file import read_torch


def find_fault(path: Path, trainer: Trainer) -> str:
    """Return why a new checkpoint cannot be loaded, and which callback is the cause; empty if it can.

    Args:
        path: The checkpoint.
        trainer: The trainer, for its callbacks.
    """
    try:
        read_torch(path)
    except Exception as error:  # torch raises errors of many classes here
        keepers = [*trainer.callbacks, trainer.datamodule]  # type: ignore[attr-defined]
        for keeper in keepers:
            if keeper is not None and not _loads(keeper.state_dict()):
                name = type(keeper).__name__
                return f"what {name} keeps cannot be loaded again; let its state_dict hold plain values and tensors"
        return shortened(str(error))
    return ""


def _loads(state: Any) -> bool:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        torch.load(buffer, weights_only=True)
    except Exception:  # as above
        return False
    return True


def with_phase(path: Path, key: str, phase: str) -> Mapping[str, Any]:
    """Return the content of a checkpoint, with another phase in the state of its ``RunCheckpoint``.

    Args:
        path: The checkpoint.
        key: Key of that state among the callbacks.
        phase: The new phase.
    """
    content: dict[str, Any] = read_torch(path)
    content["callbacks"][key]["phase"] = str(phase)
    return content
