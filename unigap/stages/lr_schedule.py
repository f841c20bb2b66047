"""How the learning rate falls over a run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer


class LRSchedule(ABC):
    """Factor of the learning rate, given the share of the training that is done. Warm-up multiplies it."""

    @abstractmethod
    def factor(self, done: float) -> float:
        """Return the factor, >= 0.

        Args:
            done: Share of the training that is done, in [0, 1].
        """


@dataclass(frozen=True)
class Constant(LRSchedule):
    """Keep the learning rate after warm-up. The run needs no end."""

    def factor(self, done: float) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Cosine(LRSchedule):
    """Lower the learning rate along half a cosine until the end of the run.

    Args:
        final: Factor at the end, in [0, 1].
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_final(self.final)

    def factor(self, done: float) -> float:
        """Return a factor that falls from 1 to ``final``."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class WarmupStableDecay(LRSchedule):
    """Keep the learning rate after warm-up, and lower it linearly over the last part of the run.

    Args:
        decay: Share of the run over which it falls, in (0, 1].
        final: Factor at the end, in [0, 1].
    """

    decay: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is a share of the run in (0, 1], got {self.decay}; the default is 0.2")
        _check_final(self.final)

    def factor(self, done: float) -> float:
        """Return 1, and in the last part of the run a factor that falls to ``final``."""
        return self.final + (1 - self.final) * min(1.0, (1 - done) / self.decay)


def _check_final(final: float) -> None:
    if not 0 <= final <= 1:
        raise ValueError(f"final is a factor of lr in [0, 1], got {final}; 0 lowers the learning rate to 0")


def check_has_end(schedule: LRSchedule, trainer: Trainer) -> None:
    """Check that the end of the run is known if the learning rate depends on it.

    Raises:
        ValueError: The schedule is not constant, and the trainer has no limit of epochs or steps.
    """
    if not isinstance(schedule, Constant) and trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise ValueError(
            f"lr_schedule {type(schedule).__name__} lowers the learning rate until the end of the run, which is not "
            "known; set trainer.max_epochs or trainer.max_steps"
        )


def share_done(trainer: Trainer) -> float:
    """Return the share of the training that is done, in [0, 1].

    With ``max_epochs``, every epoch is an equal share, because redraws change the number of steps in an epoch and
    nobody knows the later ones. With ``max_steps``, every step is. With both, the limit that is nearer counts.
    """
    shares = [0.0]
    if trainer.max_epochs and trainer.max_epochs > 0:
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        inside = batches.processed / trainer.num_training_batches
        shares.append((trainer.current_epoch + inside) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return min(1.0, max(shares))
