"""Plots of learning dynamics: pure functions that return a matplotlib figure.

Shape legend: P probes, N samples of all sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch import Tensor

from unigap.report.plots.style import GENERATION, GROUP_STYLE, INK, NULL, QUIET, canvas, panel


def prediction_plot(
    predicted: Mapping[str, Tensor], measured: Mapping[str, Tensor], groups: Sequence[str], title: str
) -> Figure:
    """Plot measured against predicted changes, one panel for each branch, with the diagonal of a perfect prediction.

    Args:
        predicted: Predicted changes by name of the branch, shape (P,) each, in nats.
        measured: Measured changes, likewise.
        groups: The group of each probe.
        title: Added to the titles, e.g. ``"step 40"``.
    """
    figure = canvas(4.2 * len(predicted), 4.0)
    for number, head in enumerate(predicted, 1):
        place = (1, len(predicted), number)
        axes = panel(figure, f"{head}, {title}", "predicted change (nats)", "measured change (nats)", place)
        x, y = predicted[head].numpy(), measured[head].numpy()
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color=NULL, linewidth=1, zorder=1)
        _scatter(axes, x, y, groups)
        axes.ticklabel_format(style="sci", scilimits=(-3, 4), axis="both")
        axes.locator_params(nbins=6)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


def quadrant_plot(generation: Tensor, understanding: Tensor, right: Tensor, groups: Sequence[str]) -> Figure:
    """Plot the change of understanding against the change of generation, each counted towards the truth.

    A change is towards the truth if it raises an image that matches its prompt or lowers one that does not. The upper
    right is co-improvement, the lower left co-degradation.

    Args:
        generation: Change of log pi(x | y), shape (P,), in nats.
        understanding: Change of the log-odds of yes, shape (P,), in nats.
        right: Whether each image matches its prompt, bool, shape (P,).
        groups: The group of each probe.
    """
    figure = canvas(5.0, 4.4)
    axes = panel(figure, "since the start", "generation, towards the truth (nats)", "understanding, towards the truth")
    sign = 2.0 * right.numpy() - 1.0
    axes.axhline(0, color=NULL, linewidth=1)
    axes.axvline(0, color=NULL, linewidth=1)
    _scatter(axes, sign * generation.numpy(), sign * understanding.numpy(), groups)
    for x, y, words in ((0.98, 0.97, "co-improve"), (0.02, 0.03, "co-degrade")):
        side = ("right", "top") if x > 0.5 else ("left", "bottom")
        axes.text(x, y, words, transform=axes.transAxes, ha=side[0], va=side[1], fontsize=9, color=QUIET)
    axes.margins(0.15)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def coupling_plot(shares: Mapping[str, float], null: Mapping[str, tuple[float, float]] | None = None) -> Figure:
    """Plot the contributions of the parts of the network to the mean own-pair cosine.

    Args:
        shares: Contribution by part.
        null: Mean and standard deviation of each contribution when questions are paired with other images; shown as a
            grey line of two standard deviations to either side.
    """
    figure = canvas(5.6, 1.2 + 0.28 * len(shares))
    axes = panel(figure, "generation-understanding coupling by part", "addition to the mean own-pair cosine", "")
    places = np.arange(len(shares))[::-1]
    axes.barh(places, list(shares.values()), color=GENERATION, height=0.62)
    if null is not None:
        mean, spread = np.array([null[name] for name in shares]).T
        axes.errorbar(mean, places, xerr=2 * spread, fmt="none", ecolor=NULL, elinewidth=2, label="null, 2 s.d.")
        axes.legend(fontsize=8, frameon=False)
    axes.set_yticks(places, list(shares))
    axes.axvline(0, color=INK, linewidth=0.8)
    return figure


def heatmap(cosines_NN: Tensor, sizes: Sequence[int], names: Sequence[str]) -> Figure:
    """Plot the cosines between all gradients, with lines between the sources; own pairs lie on the off-block diagonals.

    Args:
        cosines_NN: Cosines, in [-1, 1].
        sizes: Number of samples of each source.
        names: Name of each source.
    """
    figure = canvas(5.2, 4.6)
    axes = panel(figure, "cosines between per-sample gradients", "", "")
    axes.grid(False)
    norm = SymLogNorm(linthresh=0.01, vmin=-1.0, vmax=1.0)  # the coupling is much smaller than the diagonal
    shown = axes.imshow(cosines_NN.numpy(), cmap="RdBu", norm=norm, interpolation="nearest")
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color=INK, linewidth=0.8)
        axes.axvline(end - 0.5, color=INK, linewidth=0.8)
    middles = ends - np.array(sizes) / 2 - 0.5
    axes.set_xticks(middles, list(names))
    axes.set_yticks(middles, list(names), rotation=90, va="center")
    figure.colorbar(shown, ax=axes, shrink=0.85).ax.tick_params(labelsize=8, colors=QUIET, length=0)
    return figure


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> None:
    for name, (colour, marker) in GROUP_STYLE.items():
        at = [i for i, group in enumerate(groups) if group == name]
        if at:
            axes.scatter(x[at], y[at], s=26, color=colour, marker=marker, alpha=0.8, linewidths=0, label=name, zorder=2)
