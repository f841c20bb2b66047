"""Tasks: named work, such as a round, whose progress and duration a command prints on standard error.

Code on any floor opens a task; nothing is printed unless a command has called `shown`. A terminal gets a bar, any other
output a line every `EVERY` seconds. Of several processes, only the first prints.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unigap.console.task_lines import IMAGE_PARTS, Part, Task, duration

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["IMAGE_PARTS", "Task", "durations", "hide", "part", "report", "shown", "starting", "task"]

EVERY = 30.0
"""Seconds between two lines of a log."""
REFRESH = 0.5
"""Seconds between two updates of a terminal."""
SHORT = 1.0
"""Seconds below which a task gets no line at its end; the last line of a command counts its time."""
START = "starting"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables with the number of this process, in the order in which Lightning reads them."""
BAR = "{percentage:3.0f}%|{bar:20}| {desc}"


class Board:
    """The open tasks of a process, the time spent on each kind of work, and their display.

    Args:
        visible: Whether to print.
    """

    def __init__(self, visible: bool) -> None:
        self.visible, self.began = visible, time.monotonic()
        self.open: list[tuple[Task, str]] = []
        self.seconds: dict[str, float] = {}
        self._mark = self.began
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._bar: tqdm | None = None

    @contextmanager
    def doing(self, task: Task, part: str = "") -> Iterator[None]:
        """Run the body as a task, or as a part of an open one; print the last line of a task that is completed."""
        depth, completed = len(self.open), False
        self._push(task, part)
        try:
            yield
            completed = True
        finally:
            self._pop(depth)
            worth_a_line = task.name != START and (task.seconds >= SHORT or task.note)
            if completed and not part and worth_a_line and self.speaks:
                self._print(task.last_line())

    def close(self) -> None:
        """End the display."""
        self._pop(0)

    @property
    def speaks(self) -> bool:
        """Whether this process prints."""
        return self.visible and _rank() == 0

    def _push(self, task: Task, part: str) -> None:
        with self._lock:
            self._charge()
            self.open.append((task, part))
            if len(self.open) == 1 and self.speaks:
                self._ended = threading.Event()
                threading.Thread(target=self._watch, args=(self._ended,), daemon=True).start()

    def _pop(self, depth: int) -> None:
        """Leave ``depth`` tasks open; those that an error has left open above them are closed too."""
        with self._lock:
            self._charge()
            del self.open[depth:]
            if not self.open:
                self._ended.set()
                self._close_bar()

    def _charge(self) -> None:
        """Add the time since the last call to the work that was opened last."""
        now = time.monotonic()
        if self.open:
            task, part = self.open[-1]
            spent, name = now - self._mark, part or task.name
            task.seconds += spent
            if part:
                task.parts[part].seconds += spent
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self._mark = now

    def _watch(self, ended: threading.Event) -> None:
        """Show the task that was opened last, again and again until ``ended``. Touches no tensors: runs in a thread."""
        # a terminal that does not know its width shows no bar
        on_terminal = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
        show: Callable[[Task], None] = self._show_bar if on_terminal else self._show_line
        while not ended.wait(REFRESH if on_terminal else EVERY):
            with self._lock:
                if not ended.is_set():
                    self._charge()
                    show(self.open[-1][0])

    def _show_line(self, task: Task) -> None:
        self._print(task.line())

    def _show_bar(self, task: Task) -> None:
        if self._bar is None:
            from tqdm import tqdm  # a tenth of a second to import

            self._bar = tqdm(total=100, file=sys.stderr, leave=False, dynamic_ncols=True, bar_format="{desc}")
        self._bar.bar_format = BAR if task.total else "{desc}"
        self._bar.n = task.percent
        self._bar.set_description_str(task.line(), refresh=False)
        self._bar.refresh()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, line: str) -> None:
        with self._lock:
            self._close_bar()
            print(line, file=sys.stderr, flush=True)


def _rank() -> int:
    """Return the number of this process, from Lightning once it is imported."""
    lightning = sys.modules.get("lightning_utilities.core.rank_zero")
    known: int | None = getattr(lightning.rank_zero_only, "rank", None) if lightning else None
    return int(next((os.environ[name] for name in RANKS if name in os.environ), 0)) if known is None else known


_board = Board(visible=False)


@contextmanager
def shown() -> Iterator[None]:
    """Print the progress of tasks while the body, a command, runs."""
    global _board
    outer, _board = _board, Board(visible=True)
    try:
        yield
    finally:
        _board.close()
        _board = outer


def hide() -> None:
    """Print no more progress in this command."""
    _board.visible = False


def durations() -> str:
    """Return how long the command and its tasks have taken, in one line; empty if there was no task to show."""
    spent = _board.seconds
    if spent.keys() <= {START} or not _board.speaks:
        return ""
    total = time.monotonic() - _board.began
    kinds = {**spent, "other": max(0.0, total - sum(spent.values()))}
    return f"time: {duration(total)} ({', '.join(f'{name} {duration(seconds)}' for name, seconds in kinds.items())})"


@contextmanager
def task(name: str, title: str, total: float = 0, unit: str = "item", parts: Sequence[str] = ()) -> Iterator[Task]:
    """Run the body as a task.

    Args:
        name: What kind of work, e.g. ``"loading"``.
        title: What it works on, for its lines.
        total: Number of items, counted by `Task.advance` or by parts; 0 if they are not counted.
        unit: What an item is, in the singular.
        parts: Names of the parts that each item goes through, ``"sampling"`` and ``"judging"``; see `part`.
    """
    opened = Task(name, title, total, unit, parts={name: Part() for name in parts})
    with _board.doing(opened):
        yield opened


@contextmanager
def starting() -> Iterator[None]:
    """Run the body, which imports libraries, as the first task of a command."""
    with task(START, "importing libraries"):
        yield


@contextmanager
def part(name: str, items: float) -> Iterator[None]:
    """Run the body as a part of the open task.

    Args:
        name: Name of the part.
        items: Number of items of the task that the body works on.
    """
    owner = _board.open[-1][0] if _board.open else Task(name, name)
    own = owner.parts.setdefault(name, Part())
    own.open, own.share = items, 0.0
    with _board.doing(owner, name):
        yield
    own.done, own.open = own.done + items, 0.0


def report(done: int, of: int) -> None:
    """Tell how far the work on the items of the open part is; a later, smaller share is ignored.

    Args:
        done: Finished steps.
        of: All steps.
    """
    if _board.open and _board.open[-1][1]:
        owner, name = _board.open[-1]
        own = owner.parts[name]
        own.share = max(own.share, done / of)
