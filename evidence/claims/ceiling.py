"""Many rounds in a row: shares accepted and right in each round, and the fitted limit of the curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evidence.claims.plan import Claim
from evidence.claims.readings import Measured
from evidence.markdown import percent
from evidence.statistics import over_seeds
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate

RATES = torch.logspace(-2, 0.7, 200, dtype=torch.float64)
"""Grid of the rate b, per round."""


def saturation(values: Sequence[float]) -> float:
    """Return the limit c of c - a exp(-b r) that least squares fits to values of rounds r = 0, 1, ...

    NaN below four rounds.

    >>> curve = [0.8 - 0.3 * math.exp(-0.5 * r) for r in range(10)]
    >>> round(saturation(curve), 2)
    0.8
    """
    if len(values) < 4:
        return math.nan
    y_R = torch.tensor(values, dtype=torch.float64)
    r_R = torch.arange(len(values), dtype=torch.float64)
    best, limit = math.inf, math.nan
    for rate in RATES.tolist():
        basis_R2 = torch.stack([torch.ones_like(r_R), torch.exp(-rate * r_R)], 1)
        fit_2 = torch.linalg.lstsq(basis_R2, y_R[:, None]).solution[:, 0]
        error = (basis_R2 @ fit_2 - y_R).square().sum().item()
        if error < best:
            best, limit = error, fit_2[0].item()
    return limit


def by_round(m: Measured) -> dict[str, Tensor]:
    """Return shares of each round's candidates, (seeds, rounds): accepted, right, and right among the accepted."""
    counts = {
        name: torch.tensor([[row[name] for row in rounds] for rounds in m.rounds], dtype=torch.float64)
        for name in ("candidates", "accepted", "right", "truly_right")
    }
    return {
        "accepted": counts["accepted"] / counts["candidates"],
        "right": counts["right"] / counts["candidates"],
        "precision of yes": counts["truly_right"] / counts["accepted"],
    }


def ceiling_section(claim: Claim, measured: Mapping[str, Measured]) -> str:
    """Return a table of the shares by round and the fitted limits."""
    parts = []
    for arm in claim.arms:
        shares = by_round(measured[arm])
        limits = {name: over_seeds([saturation(row) for row in rows_KR.tolist()]) for name, rows_KR in shares.items()}
        rows = [
            [str(number), *(percent(over_seeds(rows_KR[:, number].tolist())) for rows_KR in shares.values())]
            for number in range(shares["right"].shape[1])
        ]
        rows.append(["fitted limit", *(_limit(limit) for limit in limits.values())])
        parts.append(f"{arm}: new images for every prompt after each epoch.\n\n" + table(("round", *shares), rows))
    return "\n\n".join(parts)


def _limit(limit: Estimate) -> str:
    return percent(limit) if limit.n else "not enough rounds"
