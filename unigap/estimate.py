"""An estimate with its interval: what every metric returns and every report shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unigap.files.typed_json import NanIfNull


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval and the number of samples it rests on.

    Attributes:
        value: The estimate; nan if there was nothing to estimate it from.
        low: Lower end of the interval; nan if fewer than two clusters leave it unknown.
        high: Upper end of the interval; nan likewise.
        n: Samples that count in the denominator; 0 when the value is nan.
    """

    value: NanIfNull
    low: NanIfNull
    high: NanIfNull
    n: int

    def __str__(self) -> str:
        """Value, interval and n on one line."""
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether both ends of the interval are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def side(self, of: float = 0) -> int:
        """Return 1 if the whole interval lies above a value, -1 if below, 0 if it holds the value or is unknown."""
        return (self.low > of) - (self.high < of)

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the four numbers by name, with None for nan, which JSON does not know."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {**{name: None if math.isnan(end) else end for name, end in ends.items()}, "n": self.n}
