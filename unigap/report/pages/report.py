"""Write the report of a run as one self-contained HTML page: changes, their uncertainty, how to repeat the run."""

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
from unigap.report.run_folder.contents import Drawing, Exhibit, RunFolder, read_run
from unigap.report.run_folder.figures import FLIPS, HEADLINE
from unigap.report.run_folder.findings import cautions, flip_cell, headline, outcome_counts, table, table_row

GLANCE = 6
"""Number of prompts at the top of the page."""
PIXELATED = 128  # images narrower than this are enlarged with sharp pixels
VERDICTS = {
    True: ("right", "\N{CHECK MARK}", "good"),
    False: ("wrong", "\N{MULTIPLICATION X}", "bad"),
    None: ("not asked", "", ""),
}
"""Text, mark and CSS class of the external verdict."""
DYNAMICS = {
    "prediction": ("Prediction against measurement", "the change of each probe, predicted and measured"),
    "quadrants": ("Where the probes went", "the change of each probe in both branches since the start"),
    "coupling": ("Coupling by part of the network", "what each part adds to the mean own-pair cosine"),
    "kernel": ("Cosines between gradients", "cosines between the gradients of all probes in both branches"),
}
"""Heading and description of each plot of the `Dynamics` callback."""


def image(run: RunFolder, name: str, alt: str) -> dict[str, Any]:
    """Return an image of the run as the page embeds it."""
    data = run.png(name)
    width, height = image_size(data)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"uri": uri, "width": width, "height": height, "pixelated": width < PIXELATED, "alt": alt}


def verdict(p_yes: float) -> str:
    """Return the own judge's verdict as text.

    >>> verdict(0.914)
    'yes (0.91)'
    """
    return f"{'yes' if p_yes >= 0.5 else 'no'} ({p_yes:.2f})"


def picture(run: RunFolder, exhibit: Exhibit, when: str, drawing: Drawing) -> dict[str, Any]:
    """Return the gallery entry of one image."""
    external, mark, tone = VERDICTS[drawing.external]
    judge = verdict(drawing.p_yes)
    alt = f"Generated {when} training for “{exhibit.prompt}”. Judge: {judge}. External verdict: {external}."
    details = {"when": when, "judge": judge, "drawing": drawing, "external": external, "mark": mark, "tone": tone}
    return image(run, drawing.image, alt) | details


def gallery(run: RunFolder) -> list[dict[str, Any]]:
    """Return the exhibits with their images."""
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


def glance(shown: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a few entries of the gallery for the top of the page, each outcome about as often as in the gallery."""

    def outcome(entry: dict[str, Any]) -> tuple[bool, bool]:
        before, after = (one["drawing"].external is True for one in entry["pictures"])
        return before, not after

    ranked, count = sorted(shown, key=outcome), min(GLANCE, len(shown))
    return [ranked[number * len(ranked) // count] for number in range(count)]


def gallery_summary(exhibits: Sequence[Exhibit]) -> str:
    """Count the changes among the exhibits; without an external judge, the exhibits alone."""
    if all(drawing.external is None for exhibit in exhibits for drawing in (exhibit.before, exhibit.after)):
        return f"{len(exhibits)} prompts are shown."
    turned = [(exhibit.before.external, exhibit.after.external) for exhibit in exhibits]
    before = sum(exhibit.before.false_positive for exhibit in exhibits)
    after = sum(exhibit.after.false_positive for exhibit in exhibits)
    return (
        f"{len(exhibits)} prompts are shown, each outcome about as often as it occurs: {turned.count((False, True))} "
        f"turned from wrong to right and {turned.count((True, False))} from right to wrong; false positives: {before} "
        f"before, {after} after."
    )


def rejudged(run: RunFolder) -> list[dict[str, Any]]:
    """Return how often the judge's verdicts on old images flipped in each way, with some of the images."""
    flips = []
    for flip in FLIPS:
        estimate = run.summary.rejudged.get(flip.metric.key)
        if estimate is None:
            continue
        pictures = []
        for one in run.rejudged:
            if one.kind == (flip.accepted, flip.right):
                before, after, external = verdict(one.p_before), verdict(one.p_after), VERDICTS[one.external][0]
                alt = f"Generated before training for “{one.prompt}”. Judge: {before}, after training {after}. "
                shown = image(run, one.image, f"{alt}External verdict: {external}.")
                pictures.append(shown | {"drawing": one, "before": before, "after": after})
        flips.append({"metric": flip.metric, "cell": flip_cell(flip, estimate), "pictures": pictures})
    return flips


def dynamics_pictures(run: RunFolder) -> list[dict[str, Any]]:
    """Return the last plots of the `Dynamics` callback."""
    found = run.dynamics_pictures
    return [
        image(run, found[kind][1], f"Plot at step {found[kind][0]}: {what}.") | {"title": title, "step": found[kind][0]}
        for kind, (title, what) in DYNAMICS.items()
        if kind in found
    ]


def plain(value: Any) -> str:
    """Return a setting as text, as in a config."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def folded(command: str) -> str:
    """Break a long command before each option, as a shell accepts it; leave one with quotes unchanged.

    >>> folded("unigap demo --seed 7")
    'unigap demo --seed 7'
    """
    if len(command) < 80 or "'" in command or '"' in command:
        return command
    return command.replace(" --", " \\\n  --")


def render(run: RunFolder) -> str:
    """Return the report of a run as HTML.

    Args:
        run: The run folder, from `read_run`.

    Returns:
        The whole page; it needs no other file and no network.

    Raises:
        ValueError: An image of the run is missing or damaged.
    """
    summary = run.summary
    outcomes = outcome_counts(summary.redrawn)
    shown = gallery(run)
    headlined = [metric for metric in HEADLINE if metric.key in summary.delta]
    by_part = [part_charts("category", summary.by_category), part_charts("difficulty", summary.by_difficulty)]
    return fill(
        "report.html.j2",
        summary=summary,
        headlines=[headline(metric, summary.delta[metric.key]) for metric in headlined],
        cautions=cautions(summary),
        heroes=[table_row(metric, summary) for metric in headlined],
        groups=table(summary),
        curves=curve_charts(run.epochs),
        from_start=any(epoch.epoch == 0 for epoch in run.epochs),
        parts=[chart for charts in by_part for chart in charts],
        rounds=round_charts(summary.rounds),
        glance=glance(shown),
        gallery=shown,
        gallery_summary=(f"{outcomes}. " if outcomes else "") + gallery_summary(run.exhibits),
        rejudged=rejudged(run),
        dynamics=dynamics_charts(run.watched),
        estimated=any("likelihood/estimate" in one.figures for one in run.watched),
        dynamics_pictures=dynamics_pictures(run),
        command=folded(summary.command),
        times=time_chart(summary.wall_seconds),
        recipe={key: plain(value) for key, value in summary.recipe.items()},
    )


def write_report(run: str | Path, out: str | Path = "") -> Path:
    """Write the report of a run.

    Args:
        run: Folder with ``summary.json`` and, optionally, the other files `unigap.report.run_folder.contents` names.
        out: File to replace atomically; ``report.html`` in the run folder if empty.

    Returns:
        The file written.

    Raises:
        ValueError: A file of the run is missing or damaged, or ``out`` exists and is no earlier page.
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
