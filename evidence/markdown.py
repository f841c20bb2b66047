"""Estimates as the evidence pages write them."""

from __future__ import annotations

import math

from unigap.metrics.intervals import Estimate


def percent(estimate: Estimate, nothing: str = "-") -> str:
    """A share in percent with its interval, e.g. ``46.2 [41.8, 50.6]``."""
    if not estimate.n or math.isnan(estimate.value):
        return nothing
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate, nothing: str = "-") -> str:
    """A change in percentage points with its interval, in bold where the interval leaves zero out."""
    if not estimate.n or math.isnan(estimate.value):
        return nothing
    value = f"{100 * estimate.value:+.1f}"
    if math.isnan(estimate.low):
        return value
    shown = f"{value} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return f"**{shown}**" if estimate.side() else shown


def shown(told: Estimate, digits: int = 3) -> str:
    """An estimate with its interval, e.g. ``0.912 [0.88, 0.94]``; a dash where there is none."""
    if math.isnan(told.value):
        return "-"
    if math.isnan(told.low):
        return _number(told.value, digits)
    return f"{_number(told.value, digits)} [{_number(told.low, digits)}, {_number(told.high, digits)}]"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if abs(value) >= 10.0 ** (1 - digits) or value == 0 else f"{value:.1e}"
