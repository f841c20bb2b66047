"""Compare arms with their controls, paired by seed and prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evidence.claims.plan import Claim
from evidence.claims.readings import Measured, readings
from evidence.claims.seeded import Seeded
from unigap.metrics.intervals import Estimate

Readings = Mapping[str, Mapping[str, Seeded]]
"""Figures of every arm."""
CONTRASTED = ("generation", "non-unification", "precision of yes", "AUROC", "TNR", "understanding on renders")
"""Figures in which an arm is compared with its control, and of which the README shows the change."""


@dataclass(frozen=True)
class Contrast:
    """Difference between an arm and its control.

    Attributes:
        arm: The arm.
        control: Its control.
        seeds: Number of seeds that both have.
        estimates: The differences, by figure.
    """

    arm: str
    control: str
    seeds: int
    estimates: Mapping[str, Estimate]

    @property
    def name(self) -> str:
        """Name of the comparison on the page."""
        return f"{self.arm} minus {self.control}"


def contrasts(claim: Claim, measured: Mapping[str, Measured], found: Readings) -> list[Contrast]:
    """Compare every arm of a claim with its control, on the seeds that both have."""

    def read(arm: str, seeds: int) -> Mapping[str, Seeded]:
        return found[arm] if measured[arm].seeds == seeds else readings(measured[arm].first(seeds))

    gaps = []
    for arm, control in claim.contrasts:
        seeds = min(measured[arm].seeds, measured[control].seeds)
        ours, theirs = read(arm, seeds), read(control, seeds)
        estimates = {name: ours[name].minus(theirs[name]).estimate() for name in CONTRASTED}
        gaps.append(Contrast(arm, control, seeds, estimates))
    return gaps
