"""Progress of a run: its phase, its position in an epoch, and the end of training."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """What a run does next when it continues from a checkpoint.

    Attributes:
        DRAWING: Draw the next round of the pool, then train.
        TRAINING: Train.
        MEASURING: Training is over; do the work that comes at the end of a run.
        DONE: Nothing is left to do.
    """

    DRAWING = "drawing"
    TRAINING = "training"
    MEASURING = "measuring"
    DONE = "done"


def is_inside_epoch(trainer: Any) -> bool:
    """Return whether an epoch has started and not ended."""
    epochs = trainer.fit_loop.epoch_progress.current
    return bool(epochs.started > epochs.processed)


def batches_trained(trainer: Any) -> int:
    """Return how many batches of the last started epoch were trained on."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.processed)


def batches_behind(trainer: Any) -> int:
    """Return how many batches of the present epoch were trained on; 0 between epochs."""
    return batches_trained(trainer) if is_inside_epoch(trainer) else 0


def training_is_over(trainer: Any) -> bool:
    """Return whether no further epoch or step follows."""
    loop = trainer.fit_loop
    out_of_steps = loop.max_steps != -1 and trainer.global_step >= loop.max_steps
    out_of_epochs = loop.max_epochs != -1 and loop.epoch_progress.current.processed >= loop.max_epochs
    return out_of_steps or out_of_epochs or (trainer.should_stop and loop._can_stop_early)
