"""Plots of the gap: pure functions that return a matplotlib figure.

Shape legend: S samples, C H W image channels and sides.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from unigap.files.images import to_image
from unigap.metrics.intervals import Estimate
from unigap.report.plots.style import (
    GENERATION,
    HAIR,
    INK,
    NULL,
    PALETTE,
    QUIET,
    UNDERSTANDING,
    canvas,
    panel,
)

RIGHT, WRONG = PALETTE["good"], PALETTE["bad"]
SERIES = (GENERATION, UNDERSTANDING, PALETTE["third"], NULL)
"""Colours of series, in their order."""


@dataclass(frozen=True)
class Shown:
    """An image on a contact sheet.

    Attributes:
        pixels_CHW: The image, in [-1, 1].
        caption: Text below it.
        frame: Colour of its frame.
    """

    pixels_CHW: Tensor
    caption: str
    frame: str = HAIR


def scores_plot(scores: Mapping[str, Mapping[str, Estimate]], axis: str, title: str = "") -> Figure:
    """Plot estimates with their intervals, a row for each name and a colour for each series.

    Args:
        scores: Estimates by row and series; shares, shown in per cent.
        axis: Label of the axis, without unit.
        title: Title of the figure.
    """
    series = list(dict.fromkeys(name for row in scores.values() for name in row))
    figure = canvas(6.4, 1.0 + (0.16 + 0.13 * len(series)) * len(scores))
    axes = panel(figure, title, f"{axis}, %", "")
    for number, name in enumerate(series):
        rows = [(place, row[name]) for place, row in enumerate(scores.values()) if name in row]
        places = np.array([place for place, _ in rows]) + 0.5 * (number - (len(series) - 1) / 2) / len(series)
        value, low, high = 100 * np.array([(e.value, e.low, e.high) for _, e in rows]).T
        colour = SERIES[number % len(SERIES)]
        axes.errorbar(value, places, xerr=[value - low, high - value], fmt="o", color=colour, markersize=5, label=name)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=9, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    if any(estimate.low < 0 for row in scores.values() for estimate in row.values()):
        axes.axvline(0, color=INK, linewidth=0.8)
    else:
        axes.set_xlim(0, 102)
    if len(series) > 1:
        figure.legend(fontsize=8, frameon=False, loc="outside lower left", ncols=len(series))
    return figure


def verdicts_plot(own_S: Tensor, right_S: Tensor) -> Figure:
    """Plot histograms of the judge's logits for right and for wrong images.

    Args:
        own_S: Log-odds of yes, shape (S,).
        right_S: Whether each image is right, bool, shape (S,).
    """
    figure = canvas(6.4, 2.8)
    axes = panel(figure, "the judge's answers", "log-odds of yes: left of 0 it says no", "images")
    bins = np.linspace(float(own_S.min()), float(own_S.max()), 40).tolist()
    for name, of, colour in (("right", right_S, RIGHT), ("wrong", ~right_S, WRONG)):
        axes.hist(own_S[of].numpy(), bins=bins, color=colour, alpha=0.55, label=f"{name} (n = {int(of.sum())})")
    axes.axvline(0, color=INK, linewidth=1)
    axes.legend(fontsize=8, frameon=False)
    return figure


def contact_sheet(rows: Mapping[str, Sequence[Shown]]) -> Figure:
    """Show images in rows with headings, each image with a caption and a frame.

    Args:
        rows: Images by heading; headings without images are left out.
    """
    shown = {heading: pictures for heading, pictures in rows.items() if pictures}
    columns = max((len(pictures) for pictures in shown.values()), default=1)
    captions = {heading: [_wrapped(one.caption) for one in pictures] for heading, pictures in shown.items()}
    heights = [1.55 + 0.12 * max(text.count("\n") + 1 for text in texts) for texts in captions.values()] or [1.0]
    figure = canvas(1.25 * columns, sum(heights))
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    for part, (heading, pictures) in zip(parts[:, 0], shown.items(), strict=False):
        part.suptitle(heading, x=0.005, ha="left", fontsize=9.5, color=INK)
        for number, one in enumerate(pictures, 1):
            axes = part.add_subplot(1, columns, number)
            axes.imshow(to_image(one.pixels_CHW), interpolation="nearest")
            axes.set_anchor("N")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(one.frame)
            axes.spines[:].set_linewidth(2.2)
            axes.set_xlabel(captions[heading][number - 1], fontsize=7, color=QUIET)
    return figure


def _wrapped(caption: str) -> str:
    return "\n".join(textwrap.fill(line, 20) for line in caption.splitlines())


def grid_plot(grids: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], names: str) -> Figure:
    """Plot tables of shares as heatmaps with one colour scale; darker is more.

    Args:
        grids: Shares by title, each of shape (rows, columns).
        rows: Name of each row.
        columns: Name of each column.
        names: Label of the x axis.
    """
    figure = canvas(3.0 * len(grids), 1.0 + 0.62 * len(rows))
    span = 1.8 * max(float(np.ptp(values)) for values in grids.values()) + 1e-9
    for number, (title, values) in enumerate(grids.items(), 1):
        axes = panel(figure, title, names, "", (1, len(grids), number))
        axes.grid(False)
        lightest = values.min() - span / 9
        axes.imshow(values, cmap="Blues", vmin=lightest, vmax=lightest + span, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=10, color=INK)
        axes.set_xticks(range(len(columns)), list(columns))
        axes.set_yticks(range(len(rows)), list(rows) if number == 1 else [""] * len(rows))
    return figure
