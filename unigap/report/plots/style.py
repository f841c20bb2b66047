"""Colours and empty axes that all plots share."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = {
    "paper": "#fdfdfb",
    "ink": "#1c1e21",
    "quiet": "#5c6168",
    "hair": "#e2e2dc",
    "faint": "#c9cac4",
    "before": "#6b7078",
    "generation": "#1663a6",
    "non-unification": "#b0520f",
    "third": "#4f7a28",
    "good": "#1d7340",
    "bad": "#b3261e",
}
"""Colours by name, all different. A page defines each as a CSS custom property, with another value for dark mode."""
PAPER, INK, QUIET, HAIR = (PALETTE[name] for name in ("paper", "ink", "quiet", "hair"))
GENERATION, UNDERSTANDING, NULL = PALETTE["generation"], PALETTE["non-unification"], "#7b8088"
GROUP_STYLE = {
    "true accept": (PALETTE["good"], "o"),
    "false accept": (PALETTE["bad"], "X"),
    "true reject": (NULL, "X"),
    "false reject": (GENERATION, "o"),
}
"""Colour and marker of a probe group; images that match their prompt are round."""


def panel(figure: Figure, title: str, x: str, y: str, place: tuple[int, int, int] = (1, 1, 1)) -> Axes:
    """Add axes without a box, with a faint grid.

    Args:
        figure: The figure.
        title: Title above the axes.
        x: Label of the x axis.
        y: Label of the y axis.
        place: Rows, columns and number of the subplot, as for ``Figure.add_subplot``.
    """
    axes = figure.add_subplot(*place)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x, fontsize=9, color=QUIET)
    axes.set_ylabel(y, fontsize=9, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET, length=0)
    axes.grid(color=HAIR, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes


def canvas(width: float = 5.0, height: float = 4.0) -> Figure:
    """Return an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")
