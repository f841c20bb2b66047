"""Handle SIGTERM, SIGINT and SIGUSR1 as a request to stop at the next point where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(SystemExit):
    """Raised to end a run after a signal; the exit status is 128 plus the signal's number.

    Args:
        number: Number of the signal.
        remedy: How to continue the run, for the message.
    """

    code: int

    def __init__(self, number: int, remedy: str = "--resume auto continues") -> None:
        super().__init__(128 + number)
        self.number = number
        self.name, self.remedy = signal.Signals(number).name, remedy


@contextlib.contextmanager
def stopped_at_once(remedy: str) -> Iterator[None]:
    """Make SIGTERM end the body at once, for work that writes only complete pieces.

    Args:
        remedy: How to continue the work, for the message.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, remedy)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopSignal:
    """Records that a signal asked the process to stop; a second SIGINT stops it at once.

    Args:
        signals: Numbers of the signals to handle.
    """

    def __init__(self, signals: Iterable[int] = ASKING) -> None:
        self.signals = tuple(signals)
        self.asked = 0
        self._before: dict[int, Any] = {}
        self._children: Any = None

    def listen(self, launcher: Any = None) -> None:
        """Install the handlers; signals are also sent to the child processes of ``launcher``, Lightning's launcher."""
        self._children = launcher if hasattr(launcher, "procs") else None
        # only the main thread can install handlers, and only it receives signals
        with contextlib.suppress(ValueError):
            self._before = {number: signal.signal(number, self._ask) for number in self.signals}

    def leave(self) -> None:
        """Restore the previous handlers."""
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
        """Raise if a signal asked to stop.

        Raises:
            Stopped: A signal arrived.
        """
        if self.asked:
            raise Stopped(self.asked)
