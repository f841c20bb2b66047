"""Writes down which rows each epoch trained on: the proof that new rows are used at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.objectives import RowBatch


class RowLog(Callback):
    """Appends one JSON line an epoch, ``{"epoch": k, "rows": [ids]}``, on the first process.

    Args:
        path: The file.
    """

    def __init__(self, path: str = "runs/rows.jsonl") -> None:
        self.path = Path(path)
        self._rows: list[str] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: RowBatch, batch_idx: int
    ) -> None:
        """Notes the rows of the batch."""
        self._rows += batch.ids

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch down."""
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": trainer.current_epoch, "rows": self._rows}) + "\n")
        self._rows = []
