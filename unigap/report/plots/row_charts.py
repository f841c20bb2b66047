"""Charts with one row for each name: before and after, values on their intervals, and stacked bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.patches import Rectangle
from matplotlib.transforms import IdentityTransform, Transform

from unigap.report.plots.charts import LETTER, WIDTH, Chart, Point, in_words, new_chart, short, ticks, write
from unigap.report.plots.inline_svg import inline_svg, legible, page_style
from unigap.report.plots.style import HAIR, PALETTE, PAPER, QUIET

CHANGE_ROW, VALUE_ROW, BAR_ROW = 50.0, 38.0, 38.0
BELOW = 36.0
"""Heights of rows, and of the axis below them, in px."""


@dataclass(frozen=True)
class Change:
    """One row of a chart of changes.

    Attributes:
        label: Name of the row.
        note: Small text after the name, e.g. the number of samples.
        before: Value before.
        after: Value after.
    """

    label: str
    note: str
    before: Point
    after: Point


@dataclass(frozen=True)
class Segment:
    """One segment of a bar.

    Attributes:
        label: What the segment counts; segments with the same label share a colour.
        value: Length, >= 0.
        colour: Name of a colour in ``PALETTE``.
        hatched: Whether it is striped, so that it differs from its neighbour in more than colour.
    """

    label: str
    value: float
    colour: str
    hatched: bool = False


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: Name of the row.
        total: The bar's length as text, e.g. ``"1 min 4 s"``.
        segments: The segments, from the left.
    """

    label: str
    total: str
    segments: Sequence[Segment]


@page_style
def change_chart(name: str, title: str, changes: Sequence[Change], colour: str, x_label: str, unit: str = "") -> str:
    """Draw the value before and after in each row, with intervals, on an axis that starts at 0.

    Args:
        name: Unique on the page.
        title: Accessible title.
        changes: The rows from the top, at least one.
        colour: Colour of the values after, a name in ``PALETTE``.
        x_label: Label of the axis, with its unit.
        unit: Written after values, e.g. ``" %"``.

    Returns:
        SVG markup.
    """
    points = [point for change in changes for point in (change.before, change.after)]
    marks = ticks(0, max(end for point in points for end in (point.value, point.ends[1])))
    chart = _rows(marks, CHANGE_ROW * len(changes), x_label, left=8, right=12, first=16)
    tips = {f"row{n}": [_draw_change(chart, n, change, colour, unit)] for n, change in enumerate(changes)}
    story = "; ".join(f"{c.label} from {in_words(c.before, unit)} to {in_words(c.after, unit)}" for c in changes)
    return inline_svg(chart.figure, name, title, f"{story}.", tips)


def _draw_change(chart: Chart, number: int, change: Change, colour: str, unit: str) -> str:
    """Draw one row: name and values above, two marks joined by a line below. Return its tooltip."""
    top, ink, gid = CHANGE_ROW * number, PALETTE[colour], f"row{number}"
    label = write(chart, 0, top + 10, change.label, weight="bold")
    placing: dict[str, Any] = {
        "xycoords": label,
        "textcoords": "offset points",
        "annotation_clip": False,
        "size": 10,
        "color": QUIET,
    }
    chart.axes.annotate(legible(change.note), (1, 0), xytext=(7, 0), va="bottom", **placing)
    values = f"{change.before.value:.0f} \N{RIGHTWARDS ARROW} {change.after.value:.0f}{unit}"
    write(chart, WIDTH, top + 10, values, ink, weight="bold", ha="right")
    first, second = top + 23, top + 35
    ends = [change.before.value, change.after.value]
    chart.axes.plot(ends, [first, second], color=ink, alpha=0.7, linewidth=1, clip_on=False, gid=gid)
    before, after = ("before", "after") if number == 0 else ("", "")
    _mark(chart, change.before, first, PALETTE["before"], gid, before, hollow=True)
    _mark(chart, change.after, second, ink, gid, after)
    spans = f"{in_words(change.before, unit)} before, {in_words(change.after, unit)} after"
    return f"{change.label}: {spans}; {change.note}"


@page_style
def interval_chart(
    name: str, title: str, rows: Sequence[tuple[str, Point]], colour: str, x_label: str, unit: str = ""
) -> str:
    """Draw a value on its interval in each row, and a line through all rows at the first value.

    Args:
        name: Unique on the page.
        title: Accessible title.
        rows: Label and value of each row from the top, at least one.
        colour: Colour of the values, a name in ``PALETTE``.
        x_label: Label of the axis, with its unit.
        unit: Written after values, e.g. ``" %"``.

    Returns:
        SVG markup.
    """
    marks = ticks(min(point.ends[0] for _, point in rows), max(point.ends[1] for _, point in rows))
    chart = _rows(marks, VALUE_ROW * len(rows), x_label, left=26, right=50)
    chart.axes.axvline(rows[0][1].value, color=PALETTE["before"], alpha=0.7, linewidth=1)
    tips = {}
    for number, (label, point) in enumerate(rows):
        middle = VALUE_ROW * (number + 0.5)
        write(chart, 0, middle + 4, label, weight="bold")
        _mark(chart, point, middle, PALETTE[colour], f"row{number}", f"{point.value:.1f}")
        tips[f"row{number}"] = [f"{label}: {in_words(point, unit)}"]
    story = "; ".join(f"{label} {in_words(point, unit)}" for label, point in rows)
    return inline_svg(chart.figure, name, title, f"{story}.", tips)


@page_style
def bar_chart(name: str, title: str, bars: Sequence[Bar], x_label: str) -> str:
    """Draw a stacked bar in each row, with a key above if a bar has several segments.

    Args:
        name: Unique on the page.
        title: Accessible title.
        bars: The rows from the top, at least one.
        x_label: Label of the axis, with its unit.

    Returns:
        SVG markup.
    """
    kinds = {segment.label: segment for bar in bars for segment in bar.segments}
    top = 26.0 if len(kinds) > 1 else 0.0
    longest = max(sum(segment.value for segment in bar.segments) for bar in bars)
    marks = ticks(0, max(longest, 1), whole=True)
    chart = _rows(marks, top + BAR_ROW * len(bars), x_label, left=1, right=16, first=top + 16)
    if len(kinds) > 1:
        _draw_key(chart, list(kinds.values()))
    tips = {}
    for row, bar in enumerate(bars):
        y, done = top + BAR_ROW * row, 0.0
        write(chart, 0, y + 10, bar.label, weight="bold")
        write(chart, WIDTH, y + 10, bar.total, ha="right")
        for number, segment in enumerate(bar.segments):
            gid = f"bar{row}-{number}"
            tips[gid] = [f"{segment.label}: {short(segment.value)}"]
            _fill(chart, (done, y + 17), segment.value, segment, gid)
            done += segment.value
    story = "; ".join(
        f"{bar.label}: " + ", ".join(f"{segment.label} {short(segment.value)}" for segment in bar.segments)
        for bar in bars
    )
    return inline_svg(chart.figure, name, title, f"{story}.", tips)


def _rows(marks: Sequence[float], tall: float, x_label: str, left: float, right: float, first: float = 0) -> Chart:
    """Return an empty chart with a horizontal scale; y is px from the top, vertical grid lines start at ``first``."""
    chart = new_chart(tall + BELOW, left, right, 0, BELOW)
    axes = chart.axes
    axes.set_xlim(marks[0], marks[-1])
    axes.set_ylim(tall, 0)
    axes.set_xticks(marks, [short(mark) for mark in marks])
    axes.set_yticks([])
    axes.tick_params(axis="x", pad=6)
    axes.vlines(marks, first, tall, color=HAIR, linewidth=1, zorder=0, clip_on=False)
    axes.set_xlabel(x_label, size=10, color=QUIET, labelpad=6)
    return chart


def _mark(chart: Chart, point: Point, y: float, colour: str, gid: str, caption: str, hollow: bool = False) -> None:
    """Draw a value on its interval, with a caption next to the interval if one is given."""
    low, high = point.ends
    shared: dict[str, Any] = {"clip_on": False, "gid": gid, "color": colour}
    chart.axes.plot([low, high], [y, y], linewidth=2, alpha=0.55, solid_capstyle="round", **shared)
    face = PAPER if hollow else colour
    chart.axes.plot(point.value, y, marker="o", markersize=8.4, markerfacecolor=face, markeredgewidth=1.8, **shared)
    if caption:
        # Beyond the right end there is no space for text; then there is some at the left end.
        right, left = (float(chart.axes.transData.transform((end, y))[0]) for end in (high, low))
        x, anchor = (right + 8, "left") if right + 50 < WIDTH else (left - 8, "right")
        write(chart, x, y + 4, caption, colour, ha=anchor)


def _draw_key(chart: Chart, kinds: Sequence[Segment]) -> None:
    x, pixels = 0.0, IdentityTransform()
    for kind in kinds:
        _fill(chart, (x, chart.axes.bbox.y1 - 13), 12, kind, transform=pixels)
        write(chart, x + 17, 10.5, kind.label)
        x += 17 + LETTER * len(kind.label) + 14


def _fill(
    chart: Chart,
    corner: tuple[float, float],
    width: float,
    segment: Segment,
    gid: str = "",
    transform: Transform | None = None,
) -> None:
    """Draw a rectangle in the colour of a segment, or in stripes of it; data coordinates without a transform."""
    colour = PALETTE[segment.colour]
    shared: dict[str, Any] = {"linewidth": 0, "clip_on": False, "transform": transform or chart.axes.transData}
    alpha = 0.18 if segment.hatched else 1.0
    chart.axes.add_artist(Rectangle(corner, width, 13, facecolor=colour, alpha=alpha, gid=gid, **shared))
    if segment.hatched:
        chart.axes.add_artist(
            Rectangle(corner, width, 13, facecolor="none", edgecolor=colour, hatch="//////", **shared)
        )
