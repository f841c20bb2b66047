"""Log the rows that each epoch trained on, as evidence that new rows are used at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.files.durable import write_durable
from unigap.files.journal import append_line, line_of, read_journal
from unigap.objectives import RowBatch
from unigap.stages import ImproveStage


class RowLog(Callback):
    """Write one JSON line an epoch, ``{"epoch": k, "rows": [ids], "sha256": digest}``, on the first process.

    A resumed run drops the lines of epochs that it trains again, and an incomplete last line.

    Args:
        path: The file; null is ``rows.jsonl`` in the run folder, empty writes none.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = Path(path) if path else None
        self._rows: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the lines of finished epochs."""
        if not (trainer.is_global_zero and self.path and self.path.exists()):
            return
        journal = read_journal(self.path, ("epoch", "rows"))
        if journal.torn:
            print(f"warning: {self.path}: the last line was cut off and is dropped", file=sys.stderr)
        kept = [record for record in journal.records if record["epoch"] < trainer.current_epoch]
        missing = {*range(trainer.current_epoch)} - {record["epoch"] for record in kept}
        if missing:
            print(f"warning: {self.path} has no line for {len(missing)} epochs, first {min(missing)}", file=sys.stderr)
        write_durable(self.path, "".join(map(line_of, kept)).encode())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: RowBatch, batch_idx: int
    ) -> None:
        """Record the rows of the batch."""
        if isinstance(pl_module, ImproveStage):
            self._rows += batch.ids

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line of the epoch."""
        if trainer.is_global_zero and self.path and isinstance(pl_module, ImproveStage):
            append_line(self.path, {"epoch": trainer.current_epoch, "rows": self._rows})
        self._rows = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows of the current epoch so far."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of the current epoch."""
        self._rows = list(state_dict["rows"])
