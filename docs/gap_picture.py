"""Plot the gap of a demonstration run before and after training: python docs/gap_picture.py RUN PICTURE."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BEFORE, AFTER, FAINT = "#9a4a12", "#17734a", "#d4d4d8"
PANELS = {
    "generation": "generated images that the oracle accepts, %",
    "non_unification": "generated images that the model itself rejects, %",
}


def rows(summary: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return the figures before and after by row label, all prompts first."""
    parts = {**summary["by_category"], **summary["by_difficulty"]}
    overall = {"all prompts": (summary["before"], summary["after"])}
    return overall | {name: (part["before"], part["after"]) for name, part in parts.items()}


def draw_panel(axes: Axes, summary: dict[str, Any], figure: str) -> None:
    """Plot one figure: a line for each row from before to after, with 95 % intervals."""
    parts = rows(summary)
    for y, (before, after) in enumerate(parts.values()):
        old, new = before[figure], after[figure]
        axes.plot([100 * old["value"], 100 * new["value"]], [y, y], color=FAINT, linewidth=5, zorder=1)
        for estimate, colour, marker in ((old, BEFORE, "o"), (new, AFTER, "D")):
            low, high = (100 * abs(estimate["value"] - estimate[end]) for end in ("low", "high"))
            axes.errorbar(100 * estimate["value"], y, xerr=[[low], [high]], color=colour, marker=marker, capsize=2)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.set_xlim(0, 100)
    axes.set_xlabel(PANELS[figure])
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)


def draw_picture(run: Path, out: Path) -> None:
    """Read ``summary.json`` of the run and write the picture."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.invert_yaxis()
    draw_panel(left, summary, "generation")
    draw_panel(right, summary, "non_unification")
    n, seconds = summary["before"]["generation"]["n"], summary["wall_seconds"]["self_improvement"]
    handles = [left.plot([], [], color=c, marker=m, linestyle="")[0] for c, m in ((BEFORE, "o"), (AFTER, "D"))]
    right.legend(handles, ["before", "after"], loc="lower right", frameon=False)
    figure.suptitle(
        f"{n:,} images for prompts never trained on, before and after {seconds:.0f} s of self-improvement "
        f"(seed {summary['seed']}, 95 % intervals)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/gap_picture.py RUN PICTURE")
    draw_picture(Path(sys.argv[1]), Path(sys.argv[2]))
