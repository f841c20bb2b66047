"""A trainer of one process that shows, logs and keeps nothing: what experiments and the demonstration train with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer


def quiet_trainer(callbacks: Sequence[Callback], **options: Any) -> Trainer:
    """A trainer for a pool that may grow.

    Args:
        callbacks: What happens around the training loop.
        options: Lightning's own, for ``Trainer``; they win over what is set here.
    """
    quiet: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "reload_dataloaders_every_n_epochs": 1,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return Trainer(callbacks=list(callbacks), **(quiet | options))
