"""A callback for runs in other processes: it keeps the loss of each step of its process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class LossFile(Callback):
    """Write the loss of each training batch to ``losses-RANK.json``."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:
        self.losses.append(outputs["loss"].item())
        Path(f"losses-{trainer.global_rank}.json").write_text(json.dumps(self.losses))
