"""Save a run at places where it can be continued exactly, and when it is asked to stop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from unigap.callbacks.checkpoint_io import stream_checkpoints
from unigap.callbacks.read_back import find_fault, with_phase
from unigap.callbacks.reopened import Cut, check_limit, cut_here, length_of, reopen
from unigap.callbacks.requeue import requeue, stop_signals
from unigap.callbacks.run_loop import RunLoop, install
from unigap.callbacks.sharded_files import remove_unused_shards, save_in_shards
from unigap.console import tasks
from unigap.console.stop_signal import Stopped, StopSignal
from unigap.files.durable import explain_write_errors, make_folder, rename_durable
from unigap.files.torch_file import write_torch
from unigap.files.writer_lock import WriterLock
from unigap.loop.progress import Phase, training_is_over
from unigap.stages import ImproveStage

LAST = "last.ckpt"


class RunCheckpoint(Checkpoint):
    """Keep ``last.ckpt``, from which ``--resume must`` continues bit for bit.

    The file is written at the end of every epoch, before a round is sampled, and on SIGTERM, SIGINT and SIGUSR1. It is
    never written after the last batch of an epoch, where Lightning would skip the redraw that follows. The file is
    replaced atomically. It holds the weights that train, the optimizer, the resolved recipe and the phase of the run
    (see ``unigap.loop.progress.Phase``), but no frozen weights that the base checkpoint gives. Sharded weights lie in a
    folder next to it, one file for each process, unless the strategy's ``save_distributed_checkpoint`` is false.
    ``fast_dev_run`` writes no file.

    Args:
        folder: Folder of the file; null is ``checkpoints`` in the run folder.
        every_n_train_steps: Also save every so many optimizer steps; 0 turns this off.
        keep_epochs: Keep a copy of every epoch's checkpoint, ``epoch-NNNN.ckpt``.
    """

    def __init__(self, folder: str | None = None, every_n_train_steps: int = 0, keep_epochs: bool = False) -> None:
        if every_n_train_steps < 0:
            raise ValueError(f"every_n_train_steps must be >= 0, got {every_n_train_steps}; 0 turns it off")
        self.folder = Path(folder or "checkpoints")
        self.every_n_train_steps, self.keep_epochs = every_n_train_steps, keep_epochs
        self.stop = StopSignal()
        self.recipe: dict[str, Any] = {}
        self.phase = Phase.TRAINING
        self._about: dict[str, Any] = {}
        self._cut: Cut | None = None
        self._stop_postponed = False
        self._loop: RunLoop
        self._lock: WriterLock | None = None

    def hold_folder(self) -> None:
        """Lock the folder against other runs until this one ends.

        Raises:
            ValueError: Another run is writing it; the message names its process.
        """
        if self._lock is None:
            make_folder(self.folder)
            lock = WriterLock(self.folder, patience=0)
            lock.acquire()
            self._lock = lock

    def _release_folder(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse checkpoint callbacks from which no run could continue exactly, and take over files and signals."""
        stream_checkpoints(trainer)
        save_in_shards(trainer)
        if stage != "fit":
            return
        for other in trainer.checkpoint_callbacks:
            if isinstance(other, ModelCheckpoint) and not _saves_at_epoch_ends(other, trainer):
                raise ValueError(
                    "ModelCheckpoint saves in the middle of an epoch, where a resumed run would lose rows of the pool; "
                    "set its save_on_train_epoch_end=true, and every_n_train_steps on --checkpoint instead"
                )
        if trainer.is_global_zero:
            self.hold_folder()
        # Lightning's own handlers end a run with exit status 0 and save nothing
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self.stop = StopSignal(stop_signals(trainer))
        self.stop.listen(trainer.strategy.launcher)
        self._loop = install(trainer)
        self._about = {"length": length_of(trainer), "world": trainer.world_size}
        if isinstance(pl_module, ImproveStage):
            self._about["start"] = pl_module.start_key

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Decide where the run continues: in the epoch that its length cut short, after it, or in its last phase.

        Raises:
            ValueError: The checkpoint is of a run with another number of processes or other initial weights, or a
                finished epoch was cut short by a limit that has changed.
        """
        state = checkpoint["callbacks"].get(self.state_key)
        if trainer.state.fn != TrainerFn.FITTING or state is None:
            return
        _check_same_run(state, self._about)
        longer = state["length"] != self._about["length"]
        self.phase = Phase(state["phase"])
        if self.phase in (Phase.MEASURING, Phase.DONE):
            self._loop.only_finish, self._loop.finished = not longer, not longer and self.phase == Phase.DONE
            if longer:
                self.phase = Phase.TRAINING
                self._loop.epoch_loop.validated = reopen(checkpoint, self.state_key, self._about["length"])
        check_limit(checkpoint, state["length"], self._about["length"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every ``every_n_train_steps`` steps, and when the run is asked to stop."""
        if self._is_inside_step(trainer):
            return
        self._cut = cut_here(trainer)
        if self._cut or trainer.is_last_batch:
            return
        asked = self._all_asked(trainer)
        if asked or (self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0):
            self.save(trainer)
        self.stop.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the state of an epoch that ends here before its last row."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not self._is_inside_step(trainer):
            self._cut = cut_here(trainer, validated=True)

    def _is_inside_step(self, trainer: Trainer) -> bool:
        """Return whether gradients are still accumulating; a requested stop then waits for the step."""
        inside = trainer.fit_loop.epoch_loop._should_accumulate()
        if inside:
            self._stop_postponed |= trainer.should_stop
            trainer.should_stop = False
        elif self._stop_postponed:
            trainer.should_stop, self._stop_postponed = True, False
        return inside

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch and its rounds; Lightning calls checkpoint callbacks last."""
        self.save(trainer, Phase.MEASURING if training_is_over(trainer) else Phase.TRAINING)
        if self.keep_epochs and not self._cut and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = self.folder / f"epoch-{trainer.current_epoch + 1:04d}.ckpt"
            with explain_write_errors(path):
                trainer.save_checkpoint(path)
        self.obey(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Record that the run is done, and release signals and folder."""
        if stage == "fit" and self._loop.finished:
            self._end(trainer)
        self.stop.leave()
        self._release_folder()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release signals and folder, as Lightning skips teardown after an error; requeue a SLURM job."""
        self.stop.leave()
        self._release_folder()
        if isinstance(exception, Stopped) and trainer.is_global_zero:
            requeue(trainer, exception)

    def save(self, trainer: Trainer, phase: Phase = Phase.TRAINING) -> None:
        """Replace ``last.ckpt``; if killed meanwhile, the old file stays.

        Args:
            trainer: The trainer.
            phase: The next phase of the run.

        Raises:
            OSError: The disk is full or the folder read-only; the old file stays.
            ValueError: The new file cannot be loaded because of a callback's state; the old file stays.
        """
        self.phase = phase
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with tasks.task("saving", f"saving {self.folder / LAST}"):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        fresh, last = self._fresh, self.folder / LAST
        if trainer.is_global_zero:
            make_folder(self.folder)
            fresh.unlink(missing_ok=True)
        with explain_write_errors(last):
            trainer.save_checkpoint(fresh)
        fault = trainer.strategy.broadcast(find_fault(fresh, trainer) if trainer.is_global_zero else "")
        if fault:
            raise ValueError(f"cannot save the run: {fault}")
        if trainer.is_global_zero:
            self._replace(fresh)
            remove_unused_shards(self.folder)
        trainer.strategy.barrier()

    def obey(self, trainer: Trainer) -> None:
        """Stop every process if one of them was asked to stop; all processes must call this.

        Raises:
            Stopped: One was asked to stop.
        """
        self._all_asked(trainer)
        self.stop.check()

    def state_dict(self) -> dict[str, Any]:
        """Return the recipe, the phase, the length of the run and the place where the last epoch was cut short."""
        cut = self._cut.state() if self._cut else {}
        return {"recipe": self.recipe, "phase": str(self.phase), "cut": cut, **self._about}

    @property
    def _fresh(self) -> Path:
        return self.folder / f".{LAST}.new"

    def _replace(self, fresh: Path) -> None:
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        rename_durable(fresh, self.folder / LAST)

    def _end(self, trainer: Trainer) -> None:
        """Mark ``last.ckpt`` as the end of a finished run."""
        last = self.folder / LAST
        if self.phase == Phase.MEASURING and trainer.is_global_zero and last.is_file():
            with explain_write_errors(last):
                write_torch(with_phase(last, self.state_key, Phase.DONE), self._fresh)
            self._replace(self._fresh)
        self.phase = Phase.DONE

    def _all_asked(self, trainer: Trainer) -> bool:
        """Return whether any process was asked to stop; all processes get the same answer."""
        if trainer.world_size > 1:
            asked = torch.tensor(self.stop.asked, device=trainer.strategy.root_device)
            self.stop.asked = int(trainer.strategy.reduce(asked, reduce_op="max"))
        return bool(self.stop.asked)


def run_checkpoint(trainer: Trainer) -> RunCheckpoint | None:
    """Return the trainer's ``RunCheckpoint``, if it has one."""
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)), None)


def _check_same_run(state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    if state["world"] != about["world"]:
        raise ValueError(
            f"this run trained on {state['world']} processes and is continued on {about['world']}, which changes what "
            "a step trains on; set trainer.devices and trainer.num_nodes back"
        )
    if state.get("start") != about.get("start"):
        raise ValueError(
            "the weights this run began with are not those its model and init_from name now; "
            "put the earlier files back, or begin a new run"
        )


def _saves_at_epoch_ends(callback: ModelCheckpoint, trainer: Trainer) -> bool:
    steps, interval = callback._every_n_train_steps, callback._train_time_interval
    at_end = callback._save_on_train_epoch_end
    at_end = trainer.check_val_every_n_epoch == 1 if at_end is None else at_end
    return at_end and not steps and interval is None and not callback.save_on_exception
