"""A run folder becomes one self-contained HTML page: what changed, how sure that is, and how to do it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unigap.files.durable import make_folder, write_durable
from unigap.files.outputs import check_output, is_page
from unigap.files.png import image_size
from unigap.report.pages.report_charts import curve_charts, dynamics_charts, part_charts, round_charts, time_chart
from unigap.report.pages.templates import fill
from unigap.report.run_folder.contents import Drawing, Estimates, Exhibit, RunFolder, read_run
from unigap.report.run_folder.figures import HEADLINE, TURNED
from unigap.report.run_folder.findings import cautions, headline, table, table_row, turned_cell

PIXELATED = 128  # images narrower than this are enlarged with sharp pixels
VERDICTS = {
    True: ("right", "\N{CHECK MARK}", "good"),
    False: ("wrong", "\N{MULTIPLICATION X}", "bad"),
    None: ("not asked", "", ""),
}
"""The external verdict in words, its mark and its tone."""
DYNAMICS = {
    "prediction": ("Prediction against measurement", "the change of each probe, predicted and measured"),
    "quadrants": ("Where the probes went", "the change of each probe in both branches since the start"),
    "coupling": ("Coupling by part of the network", "what each part adds to the mean own-pair cosine"),
    "kernel": ("Cosines between gradients", "cosines between the gradients of all probes in both branches"),
}
"""Heading and description of each picture of the `Dynamics` callback."""


def image(run: RunFolder, name: str, alt: str) -> dict[str, Any]:
    """A picture of the run as the page embeds it."""
    data = run.png(name)
    width, height = image_size(data)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"uri": uri, "width": width, "height": height, "pixelated": width < PIXELATED, "alt": alt}


def said(p_yes: float) -> str:
    """The own judge's verdict in words.

    >>> said(0.914)
    'yes (0.91)'
    """
    return f"{'yes' if p_yes >= 0.5 else 'no'} ({p_yes:.2f})"


def picture(run: RunFolder, exhibit: Exhibit, when: str, drawing: Drawing) -> dict[str, Any]:
    """What the gallery shows of one drawing."""
    external, mark, tone = VERDICTS[drawing.external]
    judge = said(drawing.p_yes)
    alt = f"Drawn {when} training for “{exhibit.prompt}”. Judge: {judge}. External verdict: {external}."
    told = {"when": when, "judge": judge, "drawing": drawing, "external": external, "mark": mark, "tone": tone}
    return image(run, drawing.image, alt) | told


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


def redrawn_summary(estimates: Estimates) -> str:
    """What became of all drawings, counted; empty where it was not."""
    told = []
    for key, was, now in (("wrong_to_right", "wrong", "right"), ("right_to_wrong", "right", "wrong")):
        estimate = estimates.get(key)
        if estimate and estimate.measured:
            told.append(f"{round(estimate.value * estimate.n):,} of {estimate.n:,} {was} drawings are {now} now")
    return f"{', and '.join(told)}. " if told else ""


def gallery_summary(exhibits: Sequence[Exhibit]) -> str:
    """What became of the exhibits, counted; where no external judge was asked, how many there are."""
    if all(drawing.external is None for exhibit in exhibits for drawing in (exhibit.before, exhibit.after)):
        return f"The {len(exhibits)} shown were chosen by their prompts."
    turned = [(exhibit.before.external, exhibit.after.external) for exhibit in exhibits]
    before = sum(exhibit.before.false_positive for exhibit in exhibits)
    after = sum(exhibit.after.false_positive for exhibit in exhibits)
    return (
        f"Of the {len(exhibits)} shown, which were chosen by their prompts, {turned.count((False, True))} turned from "
        f"wrong to right and {turned.count((True, False))} from right to wrong; false positives: {before} before, "
        f"{after} after."
    )


def rejudged(run: RunFolder) -> list[dict[str, Any]]:
    """Each way in which the judge's verdict on old drawings turned round: how often, and some of the drawings."""
    ways = []
    for way in TURNED:
        estimate = run.summary.rejudged.get(way.metric.key)
        if estimate is None:
            continue
        pictures = []
        for one in run.rejudged:
            if one.kind == (way.accepted, way.right):
                before, after, external = said(one.p_before), said(one.p_after), VERDICTS[one.external][0]
                alt = f"Drawn before training for “{one.prompt}”. Judge: {before}, after training {after}. "
                shown = image(run, one.image, f"{alt}External verdict: {external}.")
                pictures.append(shown | {"drawing": one, "before": before, "after": after})
        ways.append({"metric": way.metric, "cell": turned_cell(way, estimate), "pictures": pictures})
    return ways


def dynamics_pictures(run: RunFolder) -> list[dict[str, Any]]:
    """The last pictures of the `Dynamics` callback."""
    found = run.dynamics_pictures
    return [
        image(run, found[kind][1], f"Plot at step {found[kind][0]}: {what}.") | {"title": title, "step": found[kind][0]}
        for kind, (title, what) in DYNAMICS.items()
        if kind in found
    ]


def plain(value: Any) -> str:
    """A setting as text, as it would stand in a config."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def folded(command: str) -> str:
    """A long command with an option a line, as a shell takes it; one with quotes is left as it is.

    >>> folded("unigap demo --seed 7")
    'unigap demo --seed 7'
    """
    if len(command) < 80 or "'" in command or '"' in command:
        return command
    return command.replace(" --", " \\\n  --")


def render(run: RunFolder) -> str:
    """The page of a run as HTML.

    Args:
        run: What `read_run` gave.

    Returns:
        The whole page; it needs no other file and no network.

    Raises:
        ValueError: An image of the run is missing or damaged.
    """
    summary = run.summary
    headlined = [metric for metric in HEADLINE if metric.key in summary.delta]
    by_part = [part_charts("category", summary.by_category), part_charts("difficulty", summary.by_difficulty)]
    return fill(
        "report.html.j2",
        summary=summary,
        claims=[headline(metric, summary.delta[metric.key]) for metric in headlined],
        cautions=cautions(summary),
        heroes=[table_row(metric, summary) for metric in headlined],
        groups=table(summary),
        curves=curve_charts(run.epochs),
        from_start=any(epoch.epoch == 0 for epoch in run.epochs),
        parts=[chart for charts in by_part for chart in charts],
        rounds=round_charts(summary.rounds),
        gallery=gallery(run),
        gallery_summary=redrawn_summary(summary.redrawn) + gallery_summary(run.exhibits),
        rejudged=rejudged(run),
        dynamics=dynamics_charts(run.watched),
        estimated=any("likelihood/estimate" in one.figures for one in run.watched),
        dynamics_pictures=dynamics_pictures(run),
        command=folded(summary.command),
        times=time_chart(summary.wall_seconds),
        recipe={key: plain(value) for key, value in summary.recipe.items()},
    )


def write_report(run: str | Path, out: str | Path = "") -> Path:
    """Write the page of a run.

    Args:
        run: Folder with ``summary.json`` and, optionally, the other files `unigap.report.run_folder.contents` names.
        out: File to write, all or nothing; ``report.html`` in the run folder if empty.

    Returns:
        The file written.

    Raises:
        ValueError: A file of the run is missing or damaged, or ``out`` is something else than an earlier page.
        OSError: The page cannot be written.
    """
    folder = read_run(run)
    path = folder.path / "report.html" if not str(out) else Path(out)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of the HTML file to write")
    check_output(path, "--out", "an HTML page", is_page)
    page = render(folder)
    make_folder(path.parent)
    write_durable(path, page.encode())
    return path
