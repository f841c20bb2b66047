"""Small charts as inline SVG: curves, dumbbells and bars. Numbers arrive in the unit they are shown in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from unigap.report.plots.svg import (
    LETTER,
    WIDTH,
    Scale,
    canvas,
    coloured,
    element,
    horizontal_axis,
    rule,
    short,
    spread,
    ticks,
    words,
)

ROW = 50
BAR_ROW = 38


@dataclass(frozen=True)
class Point:
    """One measured value.

    Attributes:
        value: The value, in the chart's unit.
        low: Lower end of its interval, None where there is none.
        high: Upper end of its interval, None where there is none.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        label: Written at the end of the curve.
        colour: CSS custom property.
        points: (x, point) in rising x, at least one.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, Point]]


@dataclass(frozen=True)
class Change:
    """One row of a dumbbell chart.

    Attributes:
        label: Name of the row.
        note: Written small beside the name, e.g. the number of samples.
        before: Value before.
        after: Value after.
    """

    label: str
    note: str
    before: Point
    after: Point


@dataclass(frozen=True)
class Segment:
    """One piece of a bar.

    Attributes:
        label: What the piece counts; pieces of one label share a colour.
        value: Length, >= 0.
        colour: CSS custom property.
        hatched: Filled with stripes, to be told apart without colour.
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
        total: The bar's length in words, e.g. ``"1 min 4 s"``.
        segments: The pieces, from the left.
    """

    label: str
    total: str
    segments: Sequence[Segment]


def told(point: Point, unit: str) -> str:
    """A point in words: "41.2 % (36 to 46)"."""
    interval = "" if point.low is None or point.high is None else f" ({short(point.low)} to {short(point.high)})"
    return f"{short(point.value)}{unit}{interval}"


def curve(line: Line, across: Scale, up: Scale, x_label: str, unit: str) -> str:
    """One curve with its band and its points."""
    places = [(across(x), point) for x, point in line.points]
    banded = [(x, p.low, p.high) for x, p in places if p.low is not None and p.high is not None]
    edge = [(x, up(high)) for x, _, high in banded] + [(x, up(low)) for x, low, _ in reversed(banded)]
    band = element("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in edge), class_="band")
    path = element("polyline", points=" ".join(f"{x:.1f},{up(p.value):.1f}" for x, p in places), class_="curve")
    tips = [f"{line.label}, {x_label} {short(x)}: {told(point, unit)}" for x, point in line.points]
    dots = [
        element("circle", element("title", escape(tip)), cx=x, cy=up(point.value), r=2.6, class_="dot")
        for (x, point), tip in zip(places, tips, strict=True)
    ]
    return coloured(line.colour, band if len(banded) > 1 else "", path, *dots)


def line_chart(name: str, title: str, lines: Sequence[Line], x_label: str, y_label: str, unit: str = "") -> str:
    """Curves over a whole-numbered axis, labelled at their ends, with bands where points have intervals.

    Args:
        name: Unique on the page.
        title: Accessible title.
        lines: At least one.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis, with its unit.
        unit: Written after values, e.g. ``" %"``.

    Returns:
        SVG markup.
    """
    height, top, bottom, left = 236.0, 28.0, 194.0, 36.0
    points = [point for line in lines for _, point in line.points]
    ends = [end for p in points for end in (p.value, p.low, p.high) if end is not None]
    marks = ticks(min(ends), max(ends))
    steps = [x for line in lines for x, _ in line.points]
    x_marks = ticks(min(steps), max(steps), smallest=1)
    lasts = [line.points[-1] for line in lines]
    values = [f"{short(point.value)}{unit}" for _, point in lasts]
    gutter = 14 + LETTER * max(map(len, [*values, *(line.label for line in lines)]))
    across = Scale(min(steps), max(*steps, min(steps) + 1), left, WIDTH - gutter)
    up = Scale(marks[0], marks[-1], bottom, top)
    grid = [rule(left, up(mark), across.end, up(mark), "grid") for mark in marks]
    numbers = [words(left - 6, up(mark) + 4, short(mark), "tick", "end") for mark in marks]
    below = [words(across(x), bottom + 16, short(x), "tick", "middle") for x in x_marks if x <= across.high]
    axes = [words(0, 12, y_label, "axis"), words((left + across.end) / 2, bottom + 34, x_label, "axis", "middle")]
    heights = spread([up(point.value) for _, point in lasts], 29, top + 6, bottom - 14)
    labels = [
        coloured(
            line.colour,
            words(across.end + 8, y + 1, line.label, "name"),
            words(across.end + 8, y + 15, value, "name strong"),
        )
        for line, value, y in zip(lines, values, heights, strict=True)
    ]
    curves = [curve(line, across, up, x_label, unit) for line in lines]
    story = "; ".join(
        f"{line.label} from {told(line.points[0][1], unit)} to {told(line.points[-1][1], unit)}" for line in lines
    )
    return canvas(name, title, f"{story}.", height, [*grid, *numbers, *below, *axes, *curves, *labels])


def marker(point: Point, across: Scale, y: float, kind: str, caption: str) -> str:
    """A value on its interval, with a caption beside the interval if one is given."""
    low, high = (point.value if end is None else end for end in (point.low, point.high))
    # Beyond the right end there is no room for words; the left end then has some.
    right = across(high) + 50 < WIDTH
    x, anchor = (across(high) + 8, "start") if right else (across(low) - 8, "end")
    return "".join(
        [
            rule(across(low), y, across(high), y, f"interval {kind}"),
            element("circle", cx=across(point.value), cy=y, r=4.2, class_=f"mark {kind}"),
            words(x, y + 4, caption, "name", anchor) if caption else "",
        ]
    )


def dumbbell(change: Change, across: Scale, top: float, colour: str, unit: str, captions: bool) -> str:
    """One row: name and values above, the value before and the value after as two marks joined by a line."""
    first, second = top + 23, top + 35
    ends = across(change.before.value), first, across(change.after.value), second
    tip = f"{change.label}: {told(change.before, unit)} before, {told(change.after, unit)} after; {change.note}"
    note = element("tspan", escape(change.note), dx=7, class_="tick")
    title = element("text", escape(change.label), note, x=0, y=top + 10, class_="name strong ink")
    values = f"{change.before.value:.0f} \N{RIGHTWARDS ARROW} {change.after.value:.0f}{unit}"
    before, after = ("before", "after") if captions else ("", "")
    return title + coloured(
        colour,
        words(WIDTH, top + 10, values, "name strong", "end"),
        rule(*ends, "join"),
        coloured("--before", marker(change.before, across, first, "hollow", before)),
        marker(change.after, across, second, "full", after),
        title=tip,
    )


def dumbbell_chart(name: str, title: str, changes: Sequence[Change], colour: str, x_label: str, unit: str = "") -> str:
    """Before and after in each row, with intervals, on an axis from 0 so that charts beside each other compare.

    Args:
        name: Unique on the page.
        title: Accessible title.
        changes: The rows from the top, at least one.
        colour: CSS custom property of the values after.
        x_label: Name of the axis, with its unit.
        unit: Written after values, e.g. ``" %"``.

    Returns:
        SVG markup.
    """
    points = [point for change in changes for point in (change.before, change.after)]
    marks = ticks(0, max(end for p in points for end in (p.value, p.high) if end is not None))
    across, bottom = Scale(marks[0], marks[-1], 8, WIDTH - 12), ROW * len(changes)
    rows = [dumbbell(row, across, ROW * index, colour, unit, index == 0) for index, row in enumerate(changes)]
    grid = horizontal_axis(across, marks, 16, bottom, x_label)
    story = "; ".join(f"{c.label} from {told(c.before, unit)} to {told(c.after, unit)}" for c in changes)
    return canvas(name, title, f"{story}.", bottom + 36, [*grid, *rows])


def stripes(name: str, colour: str) -> str:
    """A striped fill in one colour."""
    line = element("path", d="M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2", stroke="currentColor", stroke_width=1.6)
    back = element("rect", width=6, height=6, fill="currentColor", fill_opacity="0.18")
    options = {"patternUnits": "userSpaceOnUse", "style": f"color:var({colour})"}
    return element("pattern", back, line, id=name, width=6, height=6, **options)


def piece(name: str, segment: Segment, x: float, y: float, width: float) -> str:
    """One rectangle of a bar."""
    fill = f"url(#{name}-{segment.colour.strip('-')})" if segment.hatched else "currentColor"
    tip = element("title", escape(f"{segment.label}: {short(segment.value)}"))
    return coloured(segment.colour, element("rect", tip, x=x, y=y, width=width, height=13.0, fill=fill, rx=1.5))


def bar_chart(name: str, title: str, bars: Sequence[Bar], x_label: str) -> str:
    """Stacked bars, one a row, with a key above if a bar has several pieces.

    Args:
        name: Unique on the page.
        title: Accessible title.
        bars: The rows from the top, at least one.
        x_label: Name of the axis, with its unit.

    Returns:
        SVG markup.
    """
    kinds = {segment.label: segment for bar in bars for segment in bar.segments}
    top = 26.0 if len(kinds) > 1 else 0.0
    longest = max(sum(segment.value for segment in bar.segments) for bar in bars)
    marks = ticks(0, longest, smallest=1)
    across, bottom = Scale(0, marks[-1], 1, WIDTH - 16), top + BAR_ROW * len(bars)
    drawn = [stripes(f"{name}-{kind.colour.strip('-')}", kind.colour) for kind in kinds.values() if kind.hatched]
    drawn += horizontal_axis(across, marks, top + 16, bottom, x_label)
    x = 0.0
    for kind in kinds.values() if len(kinds) > 1 else ():
        drawn += [piece(name, kind, x, 0, 12), words(x + 17, 10.5, kind.label, "name ink")]
        x += 17 + LETTER * len(kind.label) + 14
    for row, bar in enumerate(bars):
        y, done = top + BAR_ROW * row, 0.0
        drawn += [words(0, y + 10, bar.label, "name strong ink"), words(WIDTH, y + 10, bar.total, "name ink", "end")]
        for segment in bar.segments:
            start, done = done, done + segment.value
            drawn.append(piece(name, segment, across(start), y + 17, across(done) - across(start)))
    story = "; ".join(
        f"{bar.label}: " + ", ".join(f"{segment.label} {short(segment.value)}" for segment in bar.segments)
        for bar in bars
    )
    return canvas(name, title, f"{story}.", bottom + 36, drawn)
