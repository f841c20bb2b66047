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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

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
DONE = {"sampling": "sampled", "judging": "judged"}
"""Parts of a task, and how a line calls their finished items."""
IMAGE_PARTS = tuple(DONE)
"""The parts of a task that samples images and judges them."""


@dataclass
class Part:
    """A share of the work on each item of a task, such as judging the images of a round.

    Attributes:
        done: Number of finished items.
        open: Number of items that are being worked on.
        share: How much of the work on the open items is done, in [0, 1].
        seconds: Time spent.
    """

    done: float = 0.0
    open: float = 0.0
    share: float = 0.0
    seconds: float = 0.0

    @property
    def reached(self) -> float:
        """Number of finished items, with the finished share of the open ones."""
        return self.done + self.open * self.share


@dataclass
class Task:
    """Named work.

    Attributes:
        name: What kind of work, as the durations at the end of a command name it.
        title: What it works on, for its lines.
        total: Number of items; 0 if they are not counted.
        unit: What an item is, in the singular.
        note: Text for the end of its lines.
        done: Number of finished items, for tasks without parts.
        seconds: Time spent, without tasks inside this one.
        parts: Its parts by name.
    """

    name: str
    title: str
    total: float = 0
    unit: str = "item"
    note: str = ""
    done: float = 0
    seconds: float = 0.0
    parts: dict[str, Part] = field(default_factory=dict)

    def advance(self, items: float = 1) -> None:
        """Count further finished items."""
        self.done += items

    def line(self) -> str:
        """Return the progress in one line: items, rate and time left as far as they are known."""
        if not self.total:
            return f"{self.title}: {duration(self.seconds)} so far"
        parts = list(self.parts.items())
        counted = ", ".join(f"{part.reached:,.0f} {DONE[name]}" for name, part in parts) or f"{self.done:,.0f}"
        words = [f"{self.title}: {counted} of {_items(self.total, self.unit)}"]
        # each part has its own speed
        known = [(part.reached, part.seconds) for _, part in parts if part.reached]
        known = known if parts else [(self.done, self.seconds)] * bool(self.done)
        cost = sum(seconds / reached for reached, seconds in known)
        if cost:
            left = sum((self.total - reached) * seconds / reached for reached, seconds in known)
            words += [f"{1 / cost:.3g} {_plural(self.unit)}/s", f"{duration(max(0.0, left))} left"]
        return ", ".join([*words, *([self.note] if self.note else [])])

    def last_line(self) -> str:
        """Return what was done and how long it took, in one line."""
        finished = {name: part.done for name, part in self.parts.items() if part.done}
        counted, verbs = min(finished.values(), default=self.done), " and ".join(DONE[name] for name in finished)
        what = f" {_items(counted, self.unit)} {verbs}".rstrip() + " in" if counted else ""
        return f"{self.title}:{what} {duration(self.seconds)}" + (f", {self.note}" if self.note else "")

    @property
    def percent(self) -> float:
        """Finished share in per cent."""
        reached = [part.reached for part in list(self.parts.values())] or [self.done]
        return min(100.0, 100 * sum(reached) / len(reached) / self.total) if self.total else 0.0


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
        parts: Names of the parts that each item goes through, keys of `DONE`; see `part`.
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


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(0.0312), duration(9.96), duration(75), duration(7500)
    ('0.031 s', '10 s', '1 min 15 s', '2 h 5 min')
    """
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _items(count: float, unit: str) -> str:
    return f"{count:,.0f} {unit if round(count) == 1 else _plural(unit)}"


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"
