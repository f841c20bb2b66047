"""Keep the learning curves of a run as JSON, for the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.files.seals import write_sealed
from unigap.stages import ImproveStage


class CurveLog(Callback):
    """Write ``curves.json``: one row an epoch with the mean training loss and every validation metric.

    With ``trainer.num_sanity_val_steps: -1``, the first row is the validation before training.

    Args:
        folder: Folder of the file; null is the run folder, empty writes none.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._losses: float | torch.Tensor = 0.0
        self._batches = 0

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row before training, if the sanity check covers all validation prompts."""
        if isinstance(pl_module, ImproveStage) and trainer.num_sanity_val_steps == math.inf:
            self._add(0, pl_module, None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss of a batch, which Lightning has divided by ``accumulate_grad_batches``."""
        if not isinstance(pl_module, ImproveStage):
            return
        # stays on its device: .item() would synchronize every step
        self._losses = self._losses + outputs["loss"].detach() * trainer.accumulate_grad_batches
        self._batches += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row."""
        if not isinstance(pl_module, ImproveStage):
            return
        self._add(trainer.current_epoch + 1, pl_module, float(self._losses) / self._batches if self._batches else None)
        self._losses, self._batches = 0.0, 0
        if trainer.is_global_zero and self.folder:
            write_sealed(Path(self.folder) / "curves.json", json.dumps(self.rows, indent=1).encode())

    def _add(self, epoch: int, stage: ImproveStage, loss: float | None) -> None:
        """Add a row for an epoch; 0 is before training."""
        figures: dict[str, float | int | None] = {}
        for name, groups in stage.results.items():
            value, low, high, n = (groups["all"].to_dict()[part] for part in ("value", "low", "high", "n"))
            figures |= {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}
        rows = len(stage.pool_data.rows) if epoch else 0
        self.rows.append({"epoch": epoch, "train_loss": loss, "pool_rows": rows, **figures})

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and the losses so far, so that a resumed run continues its curves."""
        return {"rows": self.rows, "losses": float(self._losses), "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the curves."""
        self.rows = state_dict["rows"]
        self._losses, self._batches = state_dict["losses"], state_dict["batches"]
