"""Intervals of figures that are measured over several seeds, each on the same prompts.

A bootstrap over few seeds is too narrow where runs differ much, and Student's t over seeds where prompts differ more
than runs: ``python -m evidence coverage`` measures both. So the wider one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from evidence.statistics import over_seeds
from unigap.metrics.intervals import Estimate, Resampled


@dataclass(frozen=True)
class Seeded:
    """A figure over all seeds.

    Attributes:
        pooled: The figure on all seeds, with resamples of prompts and seeds.
        seed_K: The figure of each seed, float64; nan where nothing counts.
    """

    pooled: Resampled
    seed_K: Tensor

    def minus(self, other: Seeded) -> Seeded:
        """Return the paired difference; both must come from the same prompts, seeds and resamples."""
        return Seeded(self.pooled.minus(other.pooled), self.seed_K - other.seed_K)

    def estimate(self) -> Estimate:
        """Return the value with the wider of two 95 % intervals: bootstrap, and Student's t over seeds."""
        found, seeds = self.pooled.estimate(), over_seeds(self.seed_K.tolist())
        if not (found.has_interval and seeds.has_interval) or seeds.high - seeds.low <= found.high - found.low:
            return found
        reach = (seeds.high - seeds.low) / 2
        return Estimate(found.value, found.value - reach, found.value + reach, found.n)
