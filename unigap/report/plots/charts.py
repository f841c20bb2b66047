"""The parts that charts of a page share, and the line chart. Values arrive in the unit they are shown in.

A chart is 360 px wide, so that its text stays readable on a phone. Positions in px count from the upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import IdentityTransform

from unigap.report.plots.inline_svg import inline_svg, legible, page_style
from unigap.report.plots.style import HAIR, INK, PALETTE, QUIET

WIDTH = 360
LETTER = 6.4  # generous width of a letter at 11 px
DPI = 72  # of matplotlib's SVG: one px is one SVG unit


@dataclass(frozen=True)
class Point:
    """One measured value.

    Attributes:
        value: The value, in the chart's unit.
        low: Lower end of its interval, None without an interval.
        high: Upper end of its interval, None without an interval.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval, or twice the value without one."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        label: Text at the end of the curve.
        colour: Name of a colour in ``PALETTE``.
        points: (x, point) in rising x, at least one.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, Point]]


@dataclass(frozen=True)
class Chart:
    """A figure with one pair of axes."""

    figure: Figure
    axes: Axes


def short(value: float) -> str:
    """Format a number for an axis or a label: grouped thousands, a true minus sign, no trailing zeros.

    >>> short(12000.0), short(-0.25), short(40.0)
    ('12,000', '\N{MINUS SIGN}0.25', '40')
    """
    text = f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def in_words(point: Point, unit: str) -> str:
    """Format a point with its interval: "41.2 % (36 to 46)"."""
    interval = "" if point.low is None or point.high is None else f" ({short(point.low)} to {short(point.high)})"
    return f"{short(point.value)}{unit}{interval}"


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return about six round numbers that enclose ``[low, high]``.

    Args:
        low: Smallest value to enclose.
        high: Largest value to enclose.
        whole: Return whole numbers only.

    >>> ticks(23.0, 61.0)
    [20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    >>> ticks(0, 3, whole=True)
    [0.0, 1.0, 2.0, 3.0]
    """
    locator = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=whole)
    if math.isclose(low, high):
        reach = 0.05 * abs(high) or 0.05
        low, high = low - reach, high + reach
    return [round(float(tick), 12) for tick in locator.tick_values(low, high)]


def new_chart(height: float, left: float, right: float, top: float, bottom: float) -> Chart:
    """Return an empty chart, without box and grid.

    Args:
        height: Height of the chart in px.
        left: Space left of the axes in px.
        right: Space right of the axes in px.
        top: Space above the axes in px.
        bottom: Space below the axes in px.
    """
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    width, tall = (WIDTH - left - right) / WIDTH, (height - top - bottom) / height
    axes = figure.add_axes((left / WIDTH, bottom / height, width, tall))
    axes.tick_params(labelsize=10, labelcolor=QUIET, length=0, pad=8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    return Chart(figure, axes)


def write(chart: Chart, x: float, y: float, text: str, colour: str = INK, **options: Any) -> Text:
    """Write text into a chart.

    Args:
        chart: The chart.
        x: Position in px; the left end of the text unless ``ha`` says otherwise.
        y: Baseline in px.
        text: The text.
        colour: Its colour.
        options: Properties of matplotlib's ``Text``.
    """
    style = {"color": colour, "size": 11, "va": "baseline", "zorder": 5, **options}
    return chart.figure.text(x, chart.figure.bbox.height - y, legible(text), transform=IdentityTransform(), **style)


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


@page_style
def line_chart(name: str, title: str, lines: Sequence[Line], x_label: str, y_label: str, unit: str = "") -> str:
    """Draw curves over a whole-numbered axis, labelled at their ends, with bands where points have intervals.

    Args:
        name: Unique on the page.
        title: Accessible title.
        lines: At least one.
        x_label: Label of the x axis.
        y_label: Label of the y axis, with its unit.
        unit: Written after values, e.g. ``" %"``.

    Returns:
        SVG markup.
    """
    height, left, top, bottom = 236.0, 36.0, 28.0, 42.0
    lasts = [line.points[-1][1] for line in lines]
    values = [f"{short(point.value)}{unit}" for point in lasts]
    gutter = 14 + LETTER * max(map(len, [*values, *(line.label for line in lines)]))
    chart = new_chart(height, left, gutter, top, bottom)
    axes = chart.axes
    _scale(axes, lines)
    write(chart, 0, 12, y_label, QUIET, size=10)
    axes.set_xlabel(x_label, size=10, color=QUIET, labelpad=7)
    tips = {f"curve{number}": _curve(axes, line, number, x_label, unit) for number, line in enumerate(lines)}
    heights = [height - float(axes.transData.transform((0, point.value))[1]) for point in lasts]
    spots = spread(heights, 29, top + 6, height - bottom - 14)
    for line, value, y in zip(lines, values, spots, strict=True):
        write(chart, WIDTH - gutter + 8, y + 1, line.label, PALETTE[line.colour])
        write(chart, WIDTH - gutter + 8, y + 15, value, PALETTE[line.colour], weight="bold")
    story = "; ".join(
        f"{line.label} from {in_words(line.points[0][1], unit)} to {in_words(line.points[-1][1], unit)}"
        for line in lines
    )
    return inline_svg(chart.figure, name, title, f"{story}.", tips)


def _scale(axes: Axes, lines: Sequence[Line]) -> None:
    """Set limits, ticks and horizontal grid lines that fit the curves."""
    steps = [x for line in lines for x, _ in line.points]
    ends = [end for line in lines for _, point in line.points for end in (point.value, *point.ends)]
    marks = ticks(min(ends), max(ends))
    first, last = min(steps), max(*steps, min(steps) + 1)
    axes.set_xlim(first, last)
    axes.set_ylim(marks[0], marks[-1])
    x_marks = [mark for mark in ticks(min(steps), max(steps), whole=True) if first <= mark <= last]
    axes.set_xticks(x_marks, [short(mark) for mark in x_marks])
    axes.set_yticks(marks, [short(mark) for mark in marks])
    axes.grid(axis="y", color=HAIR, linewidth=1)


def _curve(axes: Axes, line: Line, number: int, x_label: str, unit: str) -> list[str]:
    """Draw one curve with its band and points; return a tooltip for each point."""
    colour = PALETTE[line.colour]
    banded = [(x, *point.ends) for x, point in line.points if point.low is not None and point.high is not None]
    if len(banded) > 1:
        steps, low, high = zip(*banded, strict=True)
        axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0, clip_on=False)
    x, y = zip(*((x, point.value) for x, point in line.points), strict=True)
    axes.plot(x, y, color=colour, linewidth=2, solid_joinstyle="round", clip_on=False)
    marked: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": 5.2,
        "markeredgewidth": 0,
        "clip_on": False,
    }
    axes.plot(x, y, color=colour, gid=f"curve{number}", **marked)
    return [f"{line.label}, {x_label} {short(x)}: {in_words(point, unit)}" for x, point in line.points]
