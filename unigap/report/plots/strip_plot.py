"""Plot a strip: images of one prompt before training and after it, with the same seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from unigap.report.plots.style import INK, PALETTE, canvas


def strip_plot(prompt: str, rows: Mapping[str, Sequence[tuple[Image.Image, float]]]) -> Figure:
    """Plot a row of images for each model; a column has one seed.

    Args:
        prompt: Text of the prompt.
        rows: Images with their probability of yes in [0, 1], by the name of the model; rows of one length, at least 1.
    """
    columns = max(map(len, rows.values()))
    figure = canvas(max(4.0, 1.5 * columns + 0.4), 1.85 * len(rows) + 0.5)
    figure.suptitle(textwrap.fill(prompt, 20 * max(columns, 3)), x=0.01, ha="left", fontsize=10, color=INK)
    for row, (name, images) in enumerate(rows.items()):
        for column, (image, p_yes) in enumerate(images):
            axes = figure.add_subplot(len(rows), columns, row * columns + column + 1)
            axes.imshow(image, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name, fontsize=9, color=INK)
            colour = PALETTE["good" if p_yes >= 0.5 else "bad"]
            axes.set_xlabel(f"judge: {'yes' if p_yes >= 0.5 else 'no'} ({p_yes:.2f})", fontsize=8, color=colour)
    return figure
