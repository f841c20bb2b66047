"""Show training as tasks, one for each epoch, in place of Lightning's progress bar."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from unigap.console import tasks
from unigap.loop.progress import batches_behind

NOTE_EVERY = 5.0
"""Seconds between two readings of the loss; each waits for the device."""


class RunProgress(ProgressBar):
    """Show each epoch with its batches, rate, time left and figures; stages show what they sample themselves."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = contextlib.ExitStack()
        self._task: tasks.Task | None = None
        self._noted = 0.0

    def enable(self) -> None:
        """Do nothing: the command decides what is shown."""

    def disable(self) -> None:
        """Do nothing: only the first process prints tasks."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the task of the epoch."""
        self._begin(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin the task of an epoch that is resumed after some batches: Lightning does not call its start again."""
        if self._task is None:
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        """Begin the task of the epoch; a resumed epoch counts the batches that are left."""
        last = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        title = f"epoch {trainer.current_epoch + 1}" + (f" of {last}" if last else "")
        self._task = self._epoch.enter_context(tasks.task("training", title, self._batches_left(trainer), "batch"))
        self._noted = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        if self._task is None:
            return
        self._task.advance()
        if time.monotonic() - self._noted > NOTE_EVERY:
            self._task.note, self._noted = self._figures(trainer, pl_module), time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the task of the epoch with its figures."""
        if self._task is not None:
            self._task.note = self._figures(trainer, pl_module)
        self._epoch.close()
        self._task = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Forget the epoch."""
        self._task = None

    def _batches_left(self, trainer: Trainer) -> float:
        """Return the number of batches of this epoch that are not trained on yet; 0 if unknown."""
        left = trainer.num_training_batches - batches_behind(trainer)
        if trainer.max_steps != -1:
            left = min(left, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
        return left if left != float("inf") else 0

    def _figures(self, trainer: Trainer, stage: LightningModule) -> str:
        figures = self.get_metrics(trainer, stage)
        return ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, float))
