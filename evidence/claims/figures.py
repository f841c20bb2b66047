"""Plot for each claim how far every arm moved generation and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from evidence.claims.plan import Claim
from evidence.claims.seeded import Seeded

PANELS = {
    "change of generation": "generation (oracle)",
    "change of non-unification": "non-unification",
    "change of precision of yes": "precision of yes",
    "change of AUROC": "AUROC, fixed images",
}


def draw_claim(claim: Claim, found: Mapping[str, Mapping[str, Seeded]], path: Path) -> None:
    """Plot the changes of every arm of a claim with their intervals, in points."""
    figure = Figure(figsize=(11, 1.2 + 0.32 * len(claim.arms)), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    places = range(len(claim.arms))
    for axis, (metric, title) in zip(axes, PANELS.items(), strict=True):
        estimates = [found[arm][metric].estimate() for arm in claim.arms]
        axis.axvline(0, color="0.6", linewidth=0.8)
        for place, e in zip(places, estimates, strict=True):
            if e.n:
                face = "tab:blue" if e.side() else "white"
                axis.plot([100 * e.low, 100 * e.high], [place, place], color="tab:blue", linewidth=1.6)
                axis.plot(100 * e.value, place, "o", color="tab:blue", markerfacecolor=face)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("change, points", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", linewidth=0.3)
    axes[0].set_yticks(list(places), claim.arms)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=130)
