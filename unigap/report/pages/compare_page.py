"""Write the HTML page that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unigap.files.durable import make_folder, write_durable
from unigap.files.outputs import check_output, is_page
from unigap.report.pages.comparison import Contender, difference, drawn_alike, recipe_differences, unrecorded
from unigap.report.pages.report_charts import curve, point
from unigap.report.pages.templates import fill
from unigap.report.plots.charts import line_chart
from unigap.report.plots.row_charts import interval_chart
from unigap.report.run_folder.figures import FIGURES, GAP, GLANCE, HEADLINE, Metric
from unigap.report.run_folder.findings import PERCENT, Cell, change_cell, value_cell

COLOURS = ("generation", "non-unification", "third", "before")
Row = tuple[str, Cell | None, Cell | None, Cell | None]


def write_comparison(runs: Sequence[Contender], out: str) -> Path:
    """Write the page.

    Args:
        runs: Two runs or more; each is compared with the first.
        out: The file, replaced atomically.

    Raises:
        ValueError: ``out`` exists and is no earlier page.
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
    """Return the page as HTML; it needs no other file and no network."""
    return fill(
        "compare.html.j2",
        runs=runs,
        glance=glance(runs),
        groups=groups(runs),
        curves=curves(runs),
        recipes=recipe_differences(runs),
        notices=unrecorded(runs),
        paired=all(run.samples and drawn_alike(runs[0], run) for run in runs),
    )


def groups(runs: Sequence[Contender]) -> list[tuple[Metric, list[Row]]]:
    """Return the table: for each metric that any run measured, one row for each run."""
    known = [metric for metric in FIGURES.values() if any(metric.key in run.after for run in runs)]
    return [(metric, [row(metric, runs[0], run) for run in runs]) for metric in known]


def row(metric: Metric, first: Contender, run: Contender) -> Row:
    """Return a run's letter with its estimates before, after, and compared with the first run."""
    before, after = (value_cell(metric, estimates.get(metric.key)) for estimates in (run.before, run.after))
    estimate, against = run.after.get(metric.key), first.after.get(metric.key)
    if run is first or estimate is None or against is None:
        return run.letter, before, after, None
    change = change_cell(metric, difference(metric.key, first, run))
    return run.letter, before, after, replace(change, verdict=change.verdict.replace("change", "difference"))


def glance(runs: Sequence[Contender]) -> list[tuple[str, Markup]]:
    """Return a chart of each main metric: (heading, SVG)."""
    charts = []
    for metric in GLANCE:
        points = [(run.letter, point(run.after[metric.key])) for run in runs if metric.key in run.after]
        found = [(letter, where) for letter, where in points if where is not None]
        if found:
            colour = metric.key.replace("_", "-") if metric in GAP else "third"
            axis = f"{metric.name.lower()}, %"
            svg = interval_chart(f"glance-{metric.key}", metric.name, found, colour, axis, PERCENT)
            charts.append((metric.name, Markup(svg)))
    return charts


def curves(runs: Sequence[Contender]) -> list[tuple[str, Markup]]:
    """Return learning curves of the gap with one line for each run: (heading, SVG)."""
    charts: list[tuple[str, Any]] = []
    for metric in HEADLINE:
        lines = []
        for number, run in enumerate(runs):
            lines += curve(run.epochs, metric.key, run.letter, COLOURS[number % len(COLOURS)])
        if any(len(line.points) > 1 for line in lines):
            title = f"{metric.name} by epoch"
            svg = line_chart(f"curve-{metric.key}", title, lines, "epoch", "share of images, %", PERCENT)
            charts.append((title, Markup(svg)))
    return charts
