"""Several runs become one self-contained HTML page, made of the same pieces as the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from unigap.files.durable import make_folder, write_durable
from unigap.files.outputs import check_output, is_page
from unigap.report.pages.comparison import SHOWN, Contender, difference, drawn_alike, recipe_differences, unrecorded
from unigap.report.pages.report_charts import curve, point
from unigap.report.plots.charts import Point, line_chart, marker, told
from unigap.report.plots.svg import WIDTH, Scale, canvas, coloured, horizontal_axis, rule, ticks, words
from unigap.report.run_folder.findings import GAP, JUDGE, PERCENT, Cell, Metric, amount, change_cell, value_cell

ROW = 38.0
COLOURS = ("--generation", "--non-unification", "--third", "--before")
Row = tuple[str, Cell | None, Cell | None, Cell | None]


def write_comparison(runs: Sequence[Contender], out: str) -> Path:
    """Writes the page.

    Args:
        runs: The runs, two or more; the first is what the others are measured against.
        out: The file, written all or nothing.

    Raises:
        ValueError: ``out`` is something else than an earlier page.
        OSError: It cannot be written.
    """
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"--out {out!r} is a folder; give the name of the HTML file to write")
    check_output(path, "--out", "an HTML page", is_page)
    page = render(runs)
    make_folder(path.parent)
    write_durable(path, page.encode())
    return path


def render(runs: Sequence[Contender]) -> str:
    """The page as HTML; it needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("compare.html.j2").render(
        runs=runs,
        glance=glance(runs),
        groups=groups(runs),
        curves=curves(runs),
        recipes=recipe_differences(runs),
        notices=unrecorded(runs),
        paired=all(run.samples and drawn_alike(runs[0], run) for run in runs),
    )


def groups(runs: Sequence[Contender]) -> list[tuple[Metric, list[Row]]]:
    """The table: of each metric that any run measured, a row a run."""
    known = [metric for metric in (*GAP, *JUDGE) if any(metric.key in run.after for run in runs)]
    return [(metric, [row(metric, runs[0], run) for run in runs]) for metric in known]


def row(metric: Metric, first: Contender, run: Contender) -> Row:
    """A run's letter, with its reading before, after, and against the first run."""
    before, after = (value_cell(metric, readings.get(metric.key)) for readings in (run.before, run.after))
    reading, against = run.after.get(metric.key), first.after.get(metric.key)
    if run is first or reading is None or against is None:
        return run.letter, before, after, None
    change = change_cell(metric, difference(metric.key, first, run))
    return run.letter, before, after, replace(change, verdict=change.verdict.replace("change", "difference"))


def glance(runs: Sequence[Contender]) -> list[tuple[str, Markup]]:
    """A chart of each main metric: (heading, SVG)."""
    charts = []
    for metric in SHOWN:
        points = [(run.letter, point(run.after[metric.key])) for run in runs if metric.key in run.after]
        found = [(letter, where) for letter, where in points if where is not None]
        if found:
            colour = f"--{metric.key.replace('_', '-')}" if metric in GAP else "--third"
            svg = interval_chart(f"glance-{metric.key}", metric.name, found, colour, f"{metric.name.lower()}, %")
            charts.append((metric.name, Markup(svg)))
    return charts


def interval_chart(name: str, title: str, rows: Sequence[tuple[str, Point]], colour: str, axis: str) -> str:
    """A value on its interval in each row, with a line through all rows where the first value lies.

    Args:
        name: Unique on the page.
        title: Accessible title.
        rows: Label and value of each row from the top, at least one; values in per cent.
        colour: CSS custom property of the values.
        axis: Name of the axis, with its unit.
    """
    ends = [end for _, p in rows for end in (p.value, p.low, p.high) if end is not None]
    marks = ticks(min(ends), max(ends))
    across, bottom = Scale(marks[0], marks[-1], 26, WIDTH - 50), ROW * len(rows)
    first = across(rows[0][1].value)
    line = coloured("--before", rule(first, 0, first, bottom, "join"))
    drawn = [*horizontal_axis(across, marks, 0, bottom, axis), line]
    for number, (label, where) in enumerate(rows):
        middle = ROW * (number + 0.5)
        drawn.append(words(0, middle + 4, label, "name strong ink"))
        tip = f"{label}: {told(where, PERCENT)}"
        drawn.append(coloured(colour, marker(where, across, middle, "full", amount(where.value / 100)), title=tip))
    story = "; ".join(f"{label} {told(where, PERCENT)}" for label, where in rows)
    return canvas(name, title, f"{story}.", bottom + 36, drawn)


def curves(runs: Sequence[Contender]) -> list[tuple[str, Markup]]:
    """Learning curves of the gap, a line a run: (heading, SVG)."""
    charts: list[tuple[str, Any]] = []
    for metric in GAP[:2]:
        lines = []
        for number, run in enumerate(runs):
            lines += curve(run.epochs, metric.key, run.letter, COLOURS[number % len(COLOURS)])
        if any(len(line.points) > 1 for line in lines):
            title = f"{metric.name} by epoch"
            svg = line_chart(f"curve-{metric.key}", title, lines, "epoch", "share of drawings, %", PERCENT)
            charts.append((title, Markup(svg)))
    return charts
