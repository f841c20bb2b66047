"""What the recommended recipe was to reach, and what it reached."""

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
"""Part of the gain that the same recipe has where the oracle accepts."""


def goals_section(found: Readings, measured: Mapping[str, Measured]) -> str:
    """Every goal with what was reached."""
    ours, ceiling = found[RECOMMENDED], found[f"{RECOMMENDED}, oracle accepts"]
    gain = ours["change of generation"]
    share = gain.over(ceiling["change of generation"]).estimate()
    precision, tnr, renders = (
        ours[f"change of {name}"].estimate() for name in ("precision of yes", "TNR", "understanding on renders")
    )
    rows = [
        [f"generation {100 * GAIN:.0f} points above the base", points(gain.estimate()), _told(gain.estimate(), GAIN)],
        [f"{100 * SHARE:.0f} % of the gain with the oracle accepting", percent(share), _told(share, SHARE)],
        ["precision of yes rises", points(precision), _told(precision)],
        ["TNR on the fixed drawings rises", points(tnr), _told(tnr)],
        ["understanding on renders does not fall", points(renders), "no" if renders.side() < 0 else "no fall seen"],
    ]
    drawn = {arm: _images(measured[arm]) for arm in (RECOMMENDED, "C-SFT")}
    return (
        "What it was to reach on internal signals alone, at the sampling budget of C-SFT "
        f"({drawn[RECOMMENDED]:,.0f} images a seed against {drawn['C-SFT']:,.0f}):\n\n"
        + table(("goal", "measured", "reached"), rows)
    )


def _told(figure: Estimate, goal: float = 0) -> str:
    """Whether the whole interval lies above the goal, or below."""
    return ("no significant difference", "yes", "no")[figure.side(goal)]


def _images(m: Measured) -> float:
    """Images drawn for training, mean over seeds."""
    return sum(row["candidates"] for rounds in m.rounds for row in rounds) / m.seeds
