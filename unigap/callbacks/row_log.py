"""Writes down which rows each epoch trained on: the proof that new rows are used at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.objectives import RowBatch
from unigap.stages import ImproveStage
from unigap.storage.manifest import make_folder, write_durable


class RowLog(Callback):
    """Writes one JSON line an epoch, ``{"epoch": k, "rows": [ids]}``, on the first process.

    A resumed run drops the lines of epochs it trains again.

    Args:
        path: The file; null is ``rows.jsonl`` in the run folder, empty writes none.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = Path(path) if path else None
        self._rows: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what was written of the epochs that lie behind."""
        if trainer.is_global_zero and self.path and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = "".join(line for line in lines if json.loads(line)["epoch"] < trainer.current_epoch)
            write_durable(self.path, kept.encode())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: RowBatch, batch_idx: int
    ) -> None:
        """Notes the rows of the batch."""
        if isinstance(pl_module, ImproveStage):
            self._rows += batch.ids

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch down."""
        if trainer.is_global_zero and self.path and isinstance(pl_module, ImproveStage):
            make_folder(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": trainer.current_epoch, "rows": self._rows}) + "\n")
        self._rows = []

    def state_dict(self) -> dict[str, Any]:
        """The rows of the present epoch so far."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the epoch."""
        self._rows = list(state_dict["rows"])
