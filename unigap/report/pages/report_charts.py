"""The charts of a report, made from the files of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from unigap.estimate import Estimate
from unigap.report.plots.charts import Line, Point, line_chart
from unigap.report.plots.row_charts import Bar, Change, Segment, bar_chart, change_chart
from unigap.report.run_folder.contents import Part, Round
from unigap.report.run_folder.curves import Epoch, Watched
from unigap.report.run_folder.figures import HEADLINE
from unigap.report.run_folder.findings import PERCENT

Charts = list[tuple[str, Markup]]
"""Headings with their SVG."""


def duration(seconds: float) -> str:
    """Return seconds as text.

    >>> duration(4.26), duration(75), duration(7260)
    ('4.3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def point(estimate: Estimate) -> Point | None:
    """Return an estimate as a point in per cent, None if it has no value."""
    if not estimate.measured:
        return None
    ends = (100 * estimate.low, 100 * estimate.high) if estimate.has_interval else ()
    return Point(100 * estimate.value, *ends)


def part_charts(name: str, parts: Mapping[str, Part]) -> Charts:
    """Return charts of the gap by category or difficulty, before and after: (heading, SVG)."""
    charts = []
    for metric in HEADLINE:
        rows = []
        for label, part in parts.items():
            if metric.key not in part.before or metric.key not in part.after:
                continue
            before, after = part.before[metric.key], part.after[metric.key]
            first, last = point(before), point(after)
            if first and last:
                n = f"n = {after.n:,}" if before.n == after.n else f"n = {before.n:,}, then {after.n:,}"
                rows.append(Change(label.replace("_", " "), n, first, last))
        if rows:
            title = f"{metric.name} by {name}"
            axis = f"{metric.name.lower()}, %"
            colour = metric.key.replace("_", "-")
            svg = change_chart(f"{name}-{metric.key}", f"{title}, before and after", rows, colour, axis, PERCENT)
            charts.append((title, Markup(svg)))
    return charts


def curve(epochs: Sequence[Epoch], key: str, label: str, colour: str, scale: float = 100) -> list[Line]:
    """Return the curve of a metric as a list of one line, or an empty list if it was never measured."""
    points = []
    for epoch in epochs:
        value, low, high = (getattr(epoch, key + end, None) for end in ("", "_low", "_high"))
        if value is not None:
            ends = (None if end is None else scale * end for end in (low, high))
            points.append((float(epoch.epoch), Point(scale * value, *ends)))
    return [Line(label, colour, points)] if points else []


def curve_charts(epochs: Sequence[Epoch]) -> Charts:
    """Return the learning curves: (heading, SVG)."""
    gap = curve(epochs, "generation", "generation", "generation")
    gap += curve(epochs, "non_unification", "non-unification", "non-unification")
    judge = curve(epochs, "understanding_renders", "understanding", "third")
    judge += curve(epochs, "judge_precision", "precision", "generation")
    judge += curve(epochs, "judge_tnr", "true negatives", "non-unification")
    loss = curve(epochs, "train_loss", "loss", "before", scale=1)
    wanted = (
        ("The gap", gap, "share of generated images, %", PERCENT),
        ("The judge", judge, "share of images, %", PERCENT),
        ("Training loss", loss, "loss", ""),
    )
    return [
        (title, Markup(line_chart(f"curve-{number}", f"{title} by epoch", lines, "epoch", axis, unit)))
        for number, (title, lines, axis, unit) in enumerate(wanted)
        if lines
    ]


def verdicts(row: Round) -> Bar:
    """Return a bar of the verdicts on a round's candidates, in per cent."""
    counts = [("accepted", row.accepted, "generation", False)]
    if row.truly_right is not None:
        right = ("accepted, right", row.truly_right, "generation", False)
        counts = [right, ("accepted, wrong", row.accepted - row.truly_right, "non-unification", True)]
    counts.append(("rejected", row.candidates - row.unjudged - row.accepted, "faint", False))
    if row.unjudged:
        counts.append(("not judged", row.unjudged, "faint", True))
    whole = max(row.candidates, 1)
    segments = [Segment(label, 100 * count / whole, colour, hatched) for label, count, colour, hatched in counts]
    return Bar(f"Round {row.round}", f"{row.accepted:,} of {row.candidates:,} accepted", segments)


def round_charts(rounds: Sequence[Round]) -> Charts:
    """Return charts of the verdicts by round and of the growth of the pool: (heading, SVG)."""
    if not rounds:
        return []
    rows = [
        Bar(f"Round {row.round}", f"{row.pool_rows:,}", [Segment("pool rows", row.pool_rows, "before")])
        for row in rounds
    ]
    judged = [verdicts(row) for row in rounds]
    first = bar_chart("rounds-candidates", "Candidates by round and verdict", judged, "share of candidates, %")
    second = bar_chart("rounds-rows", "Training rows in the pool after each round", rows, "training rows")
    return [("Candidates by verdict", Markup(first)), ("Training rows in the pool", Markup(second))]


def time_chart(wall_seconds: Mapping[str, float]) -> Markup | None:
    """Return a chart of the time by phase, None without times."""
    if not wall_seconds:
        return None
    bars = [
        Bar(phase.replace("_", " "), duration(seconds), [Segment("seconds", seconds, "before")])
        for phase, seconds in wall_seconds.items()
    ]
    return Markup(bar_chart("wall-seconds", "Wall-clock time by phase", bars, "seconds"))


def figure_line(watched: Sequence[Watched], figure: str, label: str, colour: str, scale: float = 1) -> list[Line]:
    """Return a number of the `Dynamics` callback by step as a list of one line, empty if it was never finite."""
    points = [(float(row.step), Point(scale * row.figures[figure])) for row in watched if figure in row.figures]
    return [Line(label, colour, points)] if points else []


def dynamics_charts(watched: Sequence[Watched]) -> Charts:
    """Return charts of the first-order fit, the coupling of the branches, and the direction of the probes."""
    steps = [row for row in watched if row.kind == "step"]
    kernels = [row for row in watched if row.kind == "kernel"]
    fit = figure_line(steps, "fit/generation/r2", "generation", "generation")
    fit += figure_line(steps, "fit/understanding/r2", "understanding", "third")
    coupling = figure_line(kernels, "own_cosine/value", "own pairs", "generation")
    coupling += figure_line(kernels, "own_cosine/null", "by chance", "before")
    moved = figure_line(kernels, "co_improve", "improved", "generation", 100)
    moved += figure_line(kernels, "co_degrade", "degraded", "non-unification", 100)
    wanted = (
        ("Steps predicted by first order", fit, "R\N{SUPERSCRIPT TWO}; 1 is a perfect prediction", ""),
        ("Coupling of generation and understanding", coupling, "mean cosine of gradients", ""),
        ("Probes that moved in both branches", moved, "share of probes, %", PERCENT),
    )
    return [
        (title, Markup(line_chart(f"dynamics-{number}", f"{title}, by step", lines, "step", axis, unit)))
        for number, (title, lines, axis, unit) in enumerate(wanted)
        if lines
    ]
