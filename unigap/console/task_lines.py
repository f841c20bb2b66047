"""A task, its parts, and the lines that describe its progress."""

from __future__ import annotations

from dataclasses import dataclass, field

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
