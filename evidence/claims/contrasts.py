"""Arms against their controls, paired on what both have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evidence.claims.plan import Claim
from evidence.claims.readings import Measured, readings
from unigap.metrics.intervals import Estimate, Resampled

Readings = Mapping[str, Mapping[str, Resampled]]
"""Figures of every arm."""
CONTRASTED = ("generation", "non-unification", "precision of yes", "AUROC", "TNR", "understanding on renders")
"""Figures in which an arm is held against its control, and whose changes the README shows."""


@dataclass(frozen=True)
class Contrast:
    """An arm against its control.

    Attributes:
        arm: The arm.
        control: What it is held against.
        seeds: On how many seeds.
        estimates: The differences, by figure.
    """

    arm: str
    control: str
    seeds: int
    estimates: Mapping[str, Estimate]

    @property
    def name(self) -> str:
        """Both, as the page says it."""
        return f"{self.arm} minus {self.control}"


def contrasts(claim: Claim, measured: Mapping[str, Measured], found: Readings) -> list[Contrast]:
    """Every arm of a claim against its control, on the seeds that both have."""

    def read(arm: str, seeds: int) -> Mapping[str, Resampled]:
        return found[arm] if measured[arm].seeds == seeds else readings(measured[arm].first(seeds))

    gaps = []
    for arm, control in claim.contrasts:
        seeds = min(measured[arm].seeds, measured[control].seeds)
        ours, theirs = read(arm, seeds), read(control, seeds)
        estimates = {name: ours[name].minus(theirs[name]).estimate() for name in CONTRASTED}
        gaps.append(Contrast(arm, control, seeds, estimates))
    return gaps
