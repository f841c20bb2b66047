"""Lightning's fit loop for continued runs: it resumes at the exact row, and every run reaches its end-of-run work.

Lightning's own loop ends without ``on_train_end`` when training was over in an earlier process, trains one batch
twice when it resumes an epoch that ``max_steps`` ended at its last batch, and skips a validation that was due when a
checkpoint was written.
"""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from unigap.loop.progress import batches_behind, is_inside_epoch


class RunEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over batches; it resumes after a batch and first does the work that follows a batch.

    Attributes:
        validated: Set on resume: the validation after the last trained batch is done.
    """

    validated = False
    restarting: bool

    def on_run_start(self, data_fetcher: Any) -> None:
        """Validate if validation is due after the last trained batch, then train the next one."""
        super().on_run_start(data_fetcher)
        if not self.restarting:
            return
        self.restarting = False
        self.batch_progress.is_last_batch = self.batch_progress.current.ready >= self.trainer.num_training_batches
        # a step is counted when its batch is left
        self._batches_that_stepped = self.global_step - (not self._should_accumulate())
        self._skip_next_val = self.validated
        self.on_advance_end(data_fetcher)


class RunLoop(_FitLoop):
    """Lightning's fit loop; a resumed run whose training is over runs the hooks of its start and its end.

    Attributes:
        only_finish: Set on resume: train no more, only do the end-of-run work.
        finished: Whether that work is done, in this process or in an earlier one.
    """

    only_finish = False
    finished = False

    def run(self) -> None:
        """Train until training is over, and end the run."""
        if self.finished:
            return
        resumed = self.is_resuming
        if resumed:
            self._find_place()
        self.setup_data()
        if self.trainer.limit_train_batches == 0 or self.max_batches == 0 or (self.skip and not resumed):
            return
        self._check_place()
        inside = is_inside_epoch(self.trainer)
        self.reset()
        self.on_run_start()
        if resumed and not inside:
            # a round may have been sampled at the start, so setup_data must load the rows again
            self._last_train_dl_reload_epoch = -math.inf
        over = self.only_finish or (self.done and not inside)
        while not over:
            try:
                self.on_advance_start()
                self.advance()
                self.on_advance_end()
            except StopIteration:
                break
            finally:
                self.on_iteration_done()
            over = self.done
        self._restarting = False
        self.on_run_end()
        self.finished = True

    def _find_place(self) -> None:
        """Set the counters to the start of an epoch, or to the place after a whole batch."""
        inside, behind = is_inside_epoch(self.trainer), batches_behind(self.trainer)
        batches: Any = self.epoch_loop.batch_progress
        epochs: Any = self.epoch_progress
        for progress, processed in ((batches.total, batches.total.processed), (batches.current, behind)):
            progress.ready = progress.started = progress.processed = progress.completed = processed
        begun = epochs.current.processed
        for progress in (epochs.total, epochs.current):
            progress.processed = progress.completed = begun
            progress.ready = progress.started = begun + inside
        batches.is_last_batch = False
        # Lightning's setter also restarts at the end of an epoch if max_steps is set
        _Loop.restarting.fset(self, inside)  # type: ignore[attr-defined]
        self._loaded_from_state_dict = inside
        self.epoch_loop._batches_that_stepped = self.epoch_loop.global_step

    def _check_place(self) -> None:
        behind = batches_behind(self.trainer)
        if behind > self.max_batches:
            raise ValueError(
                f"{behind} batches of this epoch are trained already, and trainer.limit_train_batches allows "
                f"{self.max_batches}; raise it to continue"
            )


def install(trainer: Trainer) -> RunLoop:
    """Make a trainer's fit loop a `RunLoop`; its state stays."""
    loop: Any = trainer.fit_loop
    loop.__class__, loop.epoch_loop.__class__ = RunLoop, RunEpochLoop
    loop.finished = loop.only_finish = loop.epoch_loop.validated = False
    return loop
