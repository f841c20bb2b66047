"""Format estimates for the evidence pages."""

from __future__ import annotations

import math

from unigap.metrics.intervals import Estimate


def percent(estimate: Estimate, nothing: str = "-") -> str:
    """Format a share in percent with its interval, e.g. ``46.2 [41.8, 50.6]``."""
    if not estimate.n or math.isnan(estimate.value):
        return nothing
    if math.isnan(estimate.low):
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate, nothing: str = "-") -> str:
    """Format a change in percentage points with its interval, in bold if the interval excludes zero."""
    if not estimate.n or math.isnan(estimate.value):
        return nothing
    value = f"{100 * estimate.value:+.1f}"
    if math.isnan(estimate.low):
        return value
    shown = f"{value} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return f"**{shown}**" if estimate.side() else shown


def shown(estimate: Estimate, digits: int = 3) -> str:
    """Format an estimate with its interval, e.g. ``0.912 [0.88, 0.94]``; a dash if there is no estimate."""
    if math.isnan(estimate.value):
        return "-"
    if math.isnan(estimate.low):
        return _number(estimate.value, digits)
    return f"{_number(estimate.value, digits)} [{_number(estimate.low, digits)}, {_number(estimate.high, digits)}]"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if abs(value) >= 10.0 ** (1 - digits) or value == 0 else f"{value:.1e}"
