"""Student's t distribution by Wallace's normal approximation: torch has neither its tail nor its quantiles.

Source: D. L. Wallace, "Bounds on normal approximations to Student's and the chi-square distributions", 1959.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def tail(t: float, df: int) -> float:
    """Return the probability that Student's t exceeds ``t``.

    Args:
        t: The statistic; may be infinite.
        df: Degrees of freedom, >= 5: there a tail of 5e-4 is off by 10 % at most, and below by more.

    >>> round(tail(2.0, 60), 3)
    0.025
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    z = math.sqrt(df * math.log1p(t * t / df)) * (8 * df + 1) / (8 * df + 3)
    return 0.5 * math.erfc(math.copysign(z, t) / math.sqrt(2))


def quantile(probability: float, df: int) -> float:
    """Return the value that Student's t exceeds with probability ``1 - probability``.

    Args:
        probability: In (0, 1).
        df: Degrees of freedom, >= 5.

    >>> round(quantile(0.975, 60), 2)
    2.0
    """
    z = NormalDist().inv_cdf(probability) * (8 * df + 3) / (8 * df + 1)
    return math.copysign(math.sqrt(df * math.expm1(z * z / df)), z)
