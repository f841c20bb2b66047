"""A run folder becomes one self-contained HTML page: what changed, how sure that is, and how to do it again."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from unigap.charts import Bar, Change, Line, Point, Segment, bar_chart, dumbbell_chart, line_chart
from unigap.findings import GAP, PERCENT, cautions, headline, table, table_row
from unigap.manifest import make_folder, write_durable
from unigap.run_folder import Drawing, Epoch, Exhibit, Part, Reading, Round, RunFolder, read_run

PIXELATED = 128  # images narrower than this are enlarged with sharp pixels


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(4.26), duration(75), duration(7260)
    ('4.3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def point(reading: Reading) -> Point | None:
    """A reading for a chart in per cent, None where there is nothing to draw."""
    if reading.value is None:
        return None
    low, high = (None if end is None else 100 * end for end in (reading.low, reading.high))
    return Point(100 * reading.value, low, high)


def part_charts(name: str, parts: Mapping[str, Part]) -> list[tuple[str, Markup]]:
    """Dumbbell charts of the gap by category or difficulty: (heading, SVG)."""
    charts = []
    for metric in GAP[:2]:
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
            colour = f"--{metric.key.replace('_', '-')}"
            svg = dumbbell_chart(f"{name}-{metric.key}", f"{title}, before and after", rows, colour, axis, PERCENT)
            charts.append((title, Markup(svg)))
    return charts


def curve(epochs: Sequence[Epoch], key: str, label: str, colour: str, scale: float = 100) -> list[Line]:
    """The curve of a figure as a list of one line, or of none if it was never measured."""
    points = []
    for epoch in epochs:
        value, low, high = (getattr(epoch, key + end, None) for end in ("", "_low", "_high"))
        if value is not None:
            ends = (None if end is None else scale * end for end in (low, high))
            points.append((float(epoch.epoch), Point(scale * value, *ends)))
    return [Line(label, colour, points)] if points else []


def curve_charts(epochs: Sequence[Epoch]) -> list[tuple[str, Markup]]:
    """Learning curves: (heading, SVG)."""
    gap = curve(epochs, "generation", "generation", "--generation")
    gap += curve(epochs, "non_unification", "non-unification", "--non-unification")
    judge = curve(epochs, "understanding_renders", "understanding", "--third")
    judge += curve(epochs, "judge_precision", "precision", "--generation")
    judge += curve(epochs, "judge_tnr", "true negatives", "--non-unification")
    loss = curve(epochs, "train_loss", "loss", "--before", scale=1)
    wanted = (
        ("The gap", gap, "share of drawings, %", PERCENT),
        ("The judge", judge, "share of images, %", PERCENT),
        ("Training loss", loss, "loss", ""),
    )
    return [
        (title, Markup(line_chart(f"curve-{number}", f"{title} by epoch", lines, "epoch", axis, unit)))
        for number, (title, lines, axis, unit) in enumerate(wanted)
        if lines
    ]


def verdicts(one: Round) -> Bar:
    """How the candidates of a round were judged, in per cent of them."""
    rejected = ("rejected", one.candidates - one.accepted, "--faint", False)
    counts = [("accepted", one.accepted, "--generation", False), rejected]
    if one.truly_right is not None:
        right = ("accepted, right", one.truly_right, "--generation", False)
        counts = [right, ("accepted, wrong", one.accepted - one.truly_right, "--non-unification", True), rejected]
    whole = max(one.candidates, 1)
    segments = [Segment(label, 100 * count / whole, colour, hatched) for label, count, colour, hatched in counts]
    return Bar(f"Round {one.round}", f"{one.accepted:,} of {one.candidates:,} accepted", segments)


def round_charts(rounds: Sequence[Round]) -> list[tuple[str, Markup]]:
    """What the judge said of the candidates and how the pool grew: (heading, SVG)."""
    if not rounds:
        return []
    rows = [
        Bar(f"Round {one.round}", f"{one.pool_rows:,}", [Segment("pool rows", one.pool_rows, "--before")])
        for one in rounds
    ]
    judged = [verdicts(one) for one in rounds]
    first = bar_chart("rounds-candidates", "Candidates by round and verdict", judged, "share of candidates, %")
    second = bar_chart("rounds-rows", "Training rows in the pool after each round", rows, "training rows")
    return [("Candidates by verdict", Markup(first)), ("Training rows in the pool", Markup(second))]


def time_chart(wall_seconds: Mapping[str, float]) -> Markup | None:
    """Where the time went."""
    if not wall_seconds:
        return None
    bars = [
        Bar(phase.replace("_", " "), duration(seconds), [Segment("seconds", seconds, "--before")])
        for phase, seconds in wall_seconds.items()
    ]
    return Markup(bar_chart("wall-seconds", "Wall-clock time by phase", bars, "seconds"))


def picture(run: RunFolder, exhibit: Exhibit, when: str, drawing: Drawing) -> dict[str, Any]:
    """What the gallery shows of one drawing."""
    data = run.png(drawing.image)
    width, height = struct.unpack(">II", data[16:24])
    external, mark, tone = {
        True: ("right", "\N{CHECK MARK}", "good"),
        False: ("wrong", "\N{MULTIPLICATION X}", "bad"),
        None: ("not asked", "", ""),
    }[drawing.external]
    judge = f"{'yes' if drawing.accepted else 'no'} ({drawing.p_yes:.2f})"
    return {
        "when": when,
        "uri": f"data:image/png;base64,{base64.b64encode(data).decode()}",
        "width": width,
        "height": height,
        "pixelated": width < PIXELATED,
        "judge": judge,
        "drawing": drawing,
        "external": external,
        "mark": mark,
        "tone": tone,
        "alt": f"Drawn {when} training for “{exhibit.prompt}”. Judge: {judge}. External verdict: {external}.",
    }


def gallery(run: RunFolder) -> list[dict[str, Any]]:
    """The exhibits with their pictures."""
    return [
        {
            "exhibit": exhibit,
            "corrected": exhibit.before.false_positive and exhibit.after.external is True,
            "pictures": [
                picture(run, exhibit, when, drawing)
                for when, drawing in (("before", exhibit.before), ("after", exhibit.after))
            ],
        }
        for exhibit in run.exhibits
    ]


def gallery_summary(exhibits: Sequence[Exhibit]) -> str:
    """What became of the exhibits, counted."""
    turned = [(exhibit.before.external, exhibit.after.external) for exhibit in exhibits]
    before = sum(exhibit.before.false_positive for exhibit in exhibits)
    after = sum(exhibit.after.false_positive for exhibit in exhibits)
    return (
        f"Of these {len(exhibits)}, {turned.count((False, True))} turned from wrong to right and "
        f"{turned.count((True, False))} from right to wrong; false positives: {before} before, {after} after."
    )


def plain(value: Any) -> str:
    """A setting as text, as it would stand in a config."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def render(run: RunFolder) -> str:
    """The page of a run as HTML.

    Args:
        run: What `read_run` gave.

    Returns:
        The whole page; it needs no other file and no network.

    Raises:
        ValueError: An image of the gallery is missing or damaged.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    summary = run.summary
    by_part = [part_charts("category", summary.by_category), part_charts("difficulty", summary.by_difficulty)]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        claims=[headline(metric, summary.delta[metric.key]) for metric in GAP[:2]],
        cautions=cautions(summary),
        heroes=[table_row(metric, summary) for metric in GAP[:2]],
        groups=table(summary),
        curves=curve_charts(run.epochs),
        parts=[chart for charts in by_part for chart in charts],
        rounds=round_charts(summary.rounds),
        gallery=gallery(run),
        gallery_summary=gallery_summary(run.exhibits),
        times=time_chart(summary.wall_seconds),
        recipe={key: plain(value) for key, value in summary.recipe.items()},
    )


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        run: Folder with ``summary.json`` and, optionally, ``curves.json``, ``gallery.json`` and its images.
        out: File to write, all or nothing; ``report.html`` in the run folder if None.

    Returns:
        The file written.

    Raises:
        ValueError: A file of the run is missing or damaged, or ``out`` is a folder.
        OSError: The page cannot be written.
    """
    folder = read_run(run)
    path = folder.path / "report.html" if out is None else Path(out)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of the HTML file to write")
    page = render(folder)
    make_folder(path.parent)
    write_durable(path, page.encode())
    return path
