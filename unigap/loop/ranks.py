"""The processes that share the work of a round."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from unigap.console import tasks
from unigap.console.stop_signal import Stopped

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Item = TypeVar("Item")
PATIENCE = timedelta(days=30)
"""How long processes wait for each other where one works alone, e.g. on a measurement or on loading a judge."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work.

    Attributes:
        rank: Number of this process.
        world: Number of processes.
        gather: Give every process the text of each process, in order of rank; blocks until all have called.
    """

    rank: int = 0
    world: int = 1
    gather: Callable[[str], list[str]] = lambda text: [text]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run the body on every process, and leave it only when all are done; an error on one is raised on all.

        Raises:
            ValueError: On every process, when one of several failed.
        """
        try:
            yield
        except (Exception, Stopped) as error:
            if self.world > 1:
                self.gather(f"process {self.rank}: {error}")
            raise
        failed = next(filter(None, self.gather("")), None)
        if failed:
            raise ValueError(failed)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share: every world-th item."""
        return items[self.rank :: self.world]

    def share_of(self, work: str) -> str:
        """Name this process's share of some work, for people."""
        return work if self.world == 1 else f"{work}, share {self.rank + 1} of {self.world}"


def ranks_of(trainer: Trainer) -> Ranks:
    """Return the processes of a trainer.

    ``gather`` waits for as long as the slowest process takes, whatever the time-out of the trainer's process group; it
    fails at once if a process has died.
    """

    def gather(text: str) -> list[str]:
        if trainer.world_size == 1:
            return [text]
        texts: list[str] = [""] * trainer.world_size
        with tasks.task("waiting", "waiting for the other processes"):
            torch.distributed.all_gather_object(texts, text, _patient_group(torch.distributed.group.WORLD))
        return texts

    return Ranks(trainer.global_rank, trainer.world_size, gather)


@functools.cache
def _patient_group(world: Any) -> Any:
    """Return a group of all processes for waiting; gloo notices the end of a process by its closed connection.

    Args:
        world: The default group, so that each has its own.
    """
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
