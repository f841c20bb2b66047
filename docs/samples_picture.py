"""Plot samples of a run before and after training: python docs/samples_picture.py RUN PICTURE."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

COLUMNS = 8
FILES = ("gallery.json", "summary.json")
INK, MUTED, UNKNOWN = "#222222", "#555555", "#8a8a8a"
VERDICTS = {True: ("right", "#17734a"), False: ("wrong", "#b3261e"), None: ("not asked", UNKNOWN)}
"""Word and colour of the external judge's verdict."""


def spread(samples: list[int], n: int) -> list[int]:
    """Return ``n`` evenly spread entries of ``samples``, or all of them if there are fewer."""
    if len(samples) <= n:
        return samples
    return [samples[(2 * i + 1) * len(samples) // (2 * n)] for i in range(n)]


def select(gallery: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return up to ``COLUMNS`` samples in gallery order.

    Samples with a changed external verdict come first, whether better or worse; evenly spread others fill the row.
    """
    changed = [i for i, sample in enumerate(gallery) if sample["before"]["external"] != sample["after"]["external"]]
    chosen = spread(changed, COLUMNS)
    others = [i for i in range(len(gallery)) if i not in changed]
    return [gallery[i] for i in sorted(chosen + spread(others, COLUMNS - len(chosen)))]


def draw_sample(axes: Axes, image: Path, p_yes: float, right: bool | None) -> None:
    """Draw one image with both verdicts below it and the external one as the colour of its frame."""
    word, colour = VERDICTS[right]
    with Image.open(image) as picture:
        axes.imshow(picture.convert("RGB"), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    verdict = "yes" if p_yes >= 0.5 else "no"
    place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 8, "va": "top"}
    axes.text(0, -0.06, f"model: {verdict} ({p_yes:.2f})", color=MUTED, **place)
    axes.text(0, -0.20, f"external: {word}", color=colour, fontweight="bold", **place)


def heading(gallery: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Return two lines: the figures of the whole test, and which samples are shown."""
    before, after = (summary[when]["generation"] for when in ("before", "after"))
    changed = sum(sample["before"]["external"] != sample["after"]["external"] for sample in gallery)
    shown = f"the {changed}" if changed <= COLUMNS else f"{COLUMNS} of the {changed}"
    return (
        f"Of {before['n']:,} test samples (seed {summary['seed']}) the external judge accepts "
        f"{100 * before['value']:.1f} % before training and {100 * after['value']:.1f} % after.\n"
        f"Shown of the {len(gallery)} samples in the gallery: {shown} whose external verdict changed"
        + (", and evenly spread others." if changed < COLUMNS else ".")
    )


def draw_picture(run: Path, out: Path) -> None:
    """Read ``gallery.json`` and ``summary.json`` of the run and write the picture."""
    gallery, summary = (json.loads((run / name).read_text(encoding="utf-8")) for name in FILES)
    samples = select(gallery)
    figure = Figure(figsize=(1.35 * len(samples) + 0.4, 4.5))
    grid = figure.subplots(2, len(samples), squeeze=False)
    figure.subplots_adjust(left=0.035, right=0.995, top=0.76, bottom=0.09, wspace=0.12, hspace=0.36)
    for column, sample in enumerate(samples):
        for row, when in enumerate(("before", "after")):
            shown = sample[when]
            draw_sample(grid[row, column], run / shown["image"], shown["p_yes"], shown["external"])
        grid[0, column].set_title(
            textwrap.fill(sample["prompt"], 20, max_lines=4, placeholder="…"), fontsize=8, color=INK, loc="left"
        )
    for row, when in enumerate(("before", "after")):
        grid[row, 0].set_ylabel(when, fontsize=11, color=INK, fontweight="bold")
    figure.suptitle(heading(gallery, summary), x=0.012, y=0.98, ha="left", fontsize=10, color=INK)
    figure.savefig(out, dpi=115, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/samples_picture.py RUN PICTURE")
    draw_picture(Path(sys.argv[1]), Path(sys.argv[2]))
