"""SIGTERM, SIGINT and SIGUSR1 as a request that is honoured where nothing is lost, not where it happens to arrive."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(SystemExit):
    """The run ends because it was asked to; the exit status is 128 plus the signal's number.

    Args:
        number: The signal's.
        remedy: How the run is continued.
    """

    code: int

    def __init__(self, number: int, remedy: str = "--resume auto continues") -> None:
        super().__init__(128 + number)
        self.number = number
        self.name, self.remedy = signal.Signals(number).name, remedy


@contextlib.contextmanager
def stopped_at_once(remedy: str) -> Iterator[None]:
    """Has SIGTERM end the body where it is, for work of which only whole pieces are ever written.

    Args:
        remedy: How the work is continued.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, remedy)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopSignal:
    """Remembers that the process was asked to stop; a second SIGINT stops it at once.

    Args:
        signals: Numbers of the signals that ask.
    """

    def __init__(self, signals: Iterable[int] = ASKING) -> None:
        self.signals = tuple(signals)
        self.asked = 0
        self._before: dict[int, Any] = {}
        self._children: Any = None

    def listen(self, launcher: Any = None) -> None:
        """Takes the signals over; ``launcher`` is Lightning's, whose child processes are told as well."""
        self._children = launcher if hasattr(launcher, "procs") else None
        # outside the main thread signals cannot be taken over, nor do they arrive
        with contextlib.suppress(ValueError):
            self._before = {number: signal.signal(number, self._ask) for number in self.signals}

    def leave(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked and self._children is not None:
            for child in self._children.procs:
                child.send_signal(number)
        self.asked = number

    def check(self) -> None:
        """Ends the run if it was asked to.

        Raises:
            Stopped: When it was.
        """
        if self.asked:
            raise Stopped(self.asked)
