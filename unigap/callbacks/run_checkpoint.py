"""Saves a run where it can be continued exactly, and when it is asked to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from unigap.console.stop_signal import StopSignal
from unigap.storage.manifest import explain_write_errors, make_folder, rename_durable

LAST = "last.ckpt"


class RunCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, from which ``--resume must`` continues bit for bit.

    It is written at the end of every epoch, before a round is drawn, and on SIGTERM and SIGINT; never after the last
    batch of an epoch, where Lightning would resume behind the regrowth that follows. The file is replaced as a whole;
    sharded weights are put together for it.

    Args:
        folder: Where it lies; null is ``checkpoints`` in the run folder.
        every_n_train_steps: Save after every so many optimizer steps as well; 0 does not.
        keep_epochs: Keep a copy of the end of every epoch, ``epoch-NNNN.ckpt``.
    """

    def __init__(self, folder: str | None = None, every_n_train_steps: int = 0, keep_epochs: bool = False) -> None:
        if every_n_train_steps < 0:
            raise ValueError(f"every_n_train_steps must be >= 0, got {every_n_train_steps}; 0 turns it off")
        self.folder = Path(folder or "checkpoints")
        self.every_n_train_steps, self.keep_epochs = every_n_train_steps, keep_epochs
        self.stop = StopSignal()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses other checkpoints that a resumed run would not continue from, and takes the signals over."""
        if stage != "fit":
            return
        for other in trainer.checkpoint_callbacks:
            if isinstance(other, ModelCheckpoint) and not _saves_at_epoch_ends(other, trainer):
                raise ValueError(
                    "ModelCheckpoint saves in the middle of an epoch, where a resumed run would lose rows of the pool; "
                    "set its save_on_train_epoch_end=true, and every_n_train_steps on --checkpoint instead"
                )
        if isinstance(trainer.strategy, ModelParallelStrategy) and trainer.strategy._save_distributed_checkpoint:
            raise ValueError("a run continues from one file; set the strategy's save_distributed_checkpoint=false")
        # Lightning's own handlers end a run with exit status 0 and save nothing
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self.stop = StopSignal()
        self.stop.listen(trainer.strategy.launcher)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time or the run is to stop."""
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = self._all_asked(trainer)
        if asked or (self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0):
            self.save(trainer)
        self.stop.check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the epoch, with the pool that grew in it (Lightning calls checkpoint callbacks last)."""
        self.save(trainer)
        if self.keep_epochs:
            trainer.save_checkpoint(self.folder / f"epoch-{trainer.current_epoch + 1:04d}.ckpt")
        self.obey(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        self.stop.leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back; Lightning does not tear callbacks down after an error."""
        self.stop.leave()

    def save(self, trainer: Trainer) -> None:
        """Replaces ``last.ckpt``; killed meanwhile, the old one stays.

        Raises:
            OSError: The disk is full or the folder read-only; the old one stays.
        """
        fresh, last = self.folder / f".{LAST}.new", self.folder / LAST
        if trainer.is_global_zero:
            make_folder(self.folder)
            fresh.unlink(missing_ok=True)
        with explain_write_errors(last):
            trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            with fresh.open("rb") as written:
                os.fsync(written.fileno())
            rename_durable(fresh, last)
        trainer.strategy.barrier()

    def obey(self, trainer: Trainer) -> None:
        """Ends every process if one of them was asked to stop; all of them have to come here.

        Raises:
            Stopped: When one was.
        """
        self._all_asked(trainer)
        self.stop.check()

    def _all_asked(self, trainer: Trainer) -> bool:
        """Whether any process was asked to stop; all of them agree on the answer."""
        if trainer.world_size > 1:
            asked = torch.tensor(self.stop.asked, device=trainer.strategy.root_device)
            self.stop.asked = int(trainer.strategy.reduce(asked, reduce_op="max"))
        return bool(self.stop.asked)


def run_checkpoint(trainer: Trainer) -> RunCheckpoint | None:
    """The trainer's ``RunCheckpoint``, if it has one."""
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)), None)


def _saves_at_epoch_ends(callback: ModelCheckpoint, trainer: Trainer) -> bool:
    steps, interval = callback._every_n_train_steps, callback._train_time_interval
    at_end = callback._save_on_train_epoch_end
    at_end = trainer.check_val_every_n_epoch == 1 if at_end is None else at_end
    return at_end and not steps and interval is None and not callback.save_on_exception
