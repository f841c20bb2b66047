"""Plot a gallery: generated images with their prompts and the verdicts of both judges."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from unigap.report.plots.style import INK, PALETTE, QUIET, canvas

COLUMNS = 4
VERDICTS = {True: "right", False: "wrong", None: "not asked"}
COLOURS = {True: PALETTE["good"], False: PALETTE["bad"], None: QUIET}
"""Text and colour of the external verdict."""


@dataclass(frozen=True)
class GalleryImage:
    """A generated image with both verdicts.

    Attributes:
        prompt: Text of the prompt.
        category: Category of the prompt.
        difficulty: Difficulty of the prompt.
        seed: Sampling seed of the image.
        picture: The image.
        p_yes: The own judge's probability of yes, in [0, 1].
        right: Whether the external judge accepts it; None without an external judge.
    """

    prompt: str
    category: str
    difficulty: str
    seed: int
    picture: Image.Image
    p_yes: float
    right: bool | None


def gallery_plot(images: Sequence[GalleryImage], title: str) -> Figure:
    """Plot a grid of images, ``COLUMNS`` in a row.

    Args:
        images: The images, at least one.
        title: When they were generated, e.g. ``"epoch 3"``.
    """
    rows = math.ceil(len(images) / COLUMNS)
    figure = canvas(2.1 * COLUMNS, 2.75 * rows + 0.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    for number, image in enumerate(images, 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        axes.imshow(image.picture, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(textwrap.fill(image.prompt, 26), fontsize=8, color=INK, loc="left")
        verdict = "yes" if image.p_yes >= 0.5 else "no"
        judge = f"judge: {verdict} ({image.p_yes:.2f})"
        external = f"external: {VERDICTS[image.right]}"
        place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 8, "va": "top"}
        axes.text(0.0, -0.04, judge, color=QUIET, **place)
        axes.text(0.0, -0.17, external, color=COLOURS[image.right], **place)
    return figure
