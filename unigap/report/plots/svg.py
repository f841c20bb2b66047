"""SVG elements and scales: what the charts are drawn with, by pure functions.

Every drawing is 360 user units wide, so that its text stays readable on a phone. Colours are names of CSS custom
properties (``"--after"``), which the page defines for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 360
LETTER = 6.4  # generous width of one letter at the charts' 11 units


@dataclass(frozen=True)
class Scale:
    """A linear map from values ``[low, high]`` to user units ``[start, end]``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies; a value outside is drawn at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5, smallest: float = 0.0) -> list[float]:
    """Round numbers that enclose ``[low, high]``, in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: Smallest value to enclose.
        high: Largest value to enclose.
        count: About how many steps to make, >= 1.
        smallest: Smallest step allowed.

    Returns:
        At least two rising values.

    >>> ticks(23.0, 61.0)
    [20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    >>> ticks(0, 3, smallest=1)
    [0.0, 1.0, 2.0, 3.0]
    """
    rough = max((high - low) / count, smallest, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(index * step, 12) for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis or a label: grouped thousands, a true minus sign, no idle zeros.

    >>> short(12000.0), short(-0.25), short(40.0)
    ('12,000', '\N{MINUS SIGN}0.25', '40')
    """
    text = f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def element(name: str, *children: str, **attributes: object) -> str:
    """An SVG element; ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``. Children are markup."""

    def written(value: object) -> str:
        return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(str(value))

    parts = [name, *(f'{key.rstrip("_").replace("_", "-")}="{written(v)}"' for key, v in attributes.items())]
    return f"<{' '.join(parts)}>{''.join(children)}</{name}>"


def words(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return element("text", escape(text), x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def rule(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def coloured(colour: str, *children: str, title: str = "") -> str:
    """A group drawn in one colour, with a tooltip."""
    tip = [element("title", escape(title))] if title else []
    return element("g", *tip, *children, style=f"color:var({colour})")


def canvas(name: str, title: str, description: str, height: float, children: Iterable[str]) -> str:
    """The SVG around a chart; ``name`` must be unique on the page."""
    heading = element("title", escape(title), id=f"{name}-title")
    told = element("desc", escape(description), id=f"{name}-desc")
    labels = f"{name}-title {name}-desc"
    box = f"0 0 {WIDTH} {height:.0f}"
    return element("svg", heading, told, *children, viewBox=box, role="img", aria_labelledby=labels, class_="chart")


def horizontal_axis(scale: Scale, marks: Sequence[float], top: float, bottom: float, label: str) -> list[str]:
    """Vertical grid lines, their numbers and the name of the axis below."""
    lines = [rule(scale(mark), top, scale(mark), bottom, "grid") for mark in marks]
    numbers = [words(scale(mark), bottom + 14, short(mark), "tick", "middle") for mark in marks]
    return [*lines, *numbers, words((scale.start + scale.end) / 2, bottom + 31, label, "axis", "middle")]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move label positions apart by at least ``gap``, keeping their order and, where they fit, within the bounds.

    >>> spread([10, 12, 40], 10, 0, 50)
    [10, 20, 40]
    >>> spread([48, 49], 10, 0, 50)
    [40, 50]
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed, floor, ceiling = list(wanted), low, high
    for index in order:
        placed[index] = max(placed[index], floor)
        floor = placed[index] + gap
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
