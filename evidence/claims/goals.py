"""The goals of the recommended recipe, and whether it reached them."""

from __future__ import annotations

from collections.abc import Mapping

from evidence.claims.contrasts import Readings
from evidence.claims.plan import RECOMMENDED
from evidence.claims.readings import Measured
from evidence.markdown import percent, points
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate

GAIN = 0.2
"""Generation above the base: the paper's largest gain on a single task."""
SHARE = 0.95
"""Share of the gain of the same recipe with the oracle as judge."""


def goals_section(found: Readings, measured: Mapping[str, Measured]) -> str:
    """Return a table of every goal, the measured value and whether it was reached."""
    ours, ceiling = found[RECOMMENDED], found[f"{RECOMMENDED}, oracle accepts"]
    gain = ours["change of generation"]
    gained = gain.estimate()
    share = gain.over(ceiling["change of generation"]).estimate()
    precision, tnr, renders = (
        ours[f"change of {name}"].estimate() for name in ("precision of yes", "TNR", "understanding on renders")
    )
    rows = [
        [
            f"generation {100 * GAIN:.0f} points above the base",
            points(gained),
            _reached(gained, GAIN),
        ],
        [f"{100 * SHARE:.0f} % of the gain with the oracle accepting", percent(share), _reached(share, SHARE)],
        ["precision of yes rises", points(precision), _reached(precision)],
        ["TNR on the fixed images rises", points(tnr), _reached(tnr)],
        ["understanding on renders does not fall", points(renders), "no" if renders.side() < 0 else "no fall seen"],
    ]
    sampled = {arm: _images(measured[arm]) for arm in (RECOMMENDED, "C-SFT")}
    return (
        "Goals on internal signals alone, at the sampling budget of C-SFT "
        f"({sampled[RECOMMENDED]:,.0f} images a seed against {sampled['C-SFT']:,.0f}):\n\n"
        + table(("goal", "measured", "reached"), rows)
    )


def _reached(figure: Estimate, goal: float = 0) -> str:
    """Return on which side of the goal the whole interval lies."""
    return ("no significant difference", "yes", "no")[figure.side(goal)]


def _images(m: Measured) -> float:
    """Return the number of images sampled for training, mean over seeds."""
    return sum(row["candidates"] for rounds in m.rounds for row in rounds) / m.seeds
