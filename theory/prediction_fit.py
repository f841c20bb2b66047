"""Fit of measured to predicted changes: slope, R^2, correlation, and the order of the error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """Fit of measured to predicted changes.

    Attributes:
        slope: Least-squares slope through the origin; 1 for a perfect prediction.
        r2: 1 - sum (measured - predicted)^2 / sum (measured - mean)^2: R^2 of the prediction itself, not
            of the fitted line, so it can be negative.
        correlation: Pearson's correlation.
        n: Number of points.
    """

    slope: float
    r2: float
    correlation: float
    n: int


def fit(predicted: Tensor, measured: Tensor) -> Fit:
    """Compare predicted with measured changes.

    Args:
        predicted: Shape (n,), n >= 2.
        measured: Shape (n,).

    Returns:
        The fit; NaN where a variance is zero.

    Raises:
        ValueError: If the shapes differ or there are fewer than two points.
    """
    if predicted.shape != measured.shape or predicted.ndim != 1 or len(predicted) < 2:
        raise ValueError(
            f"fit needs two vectors of equal length >= 2, got {tuple(predicted.shape)}, {tuple(measured.shape)}"
        )
    x, y = predicted.double(), measured.double()
    around_x, around_y = x - x.mean(), y - y.mean()
    return Fit(
        slope=float(x @ y / (x @ x)),
        r2=float(1 - (y - x).square().sum() / around_y.square().sum()),
        correlation=float(around_x @ around_y / (around_x.norm() * around_y.norm())),
        n=len(x),
    )


def error_order(etas: Tensor, errors: Tensor) -> float:
    """Return the order p of an error that falls as eta^p: the slope of log error over log eta.

    Args:
        etas: Step sizes, shape (n,), positive, at least two different.
        errors: Absolute errors, shape (n,), positive.

    Returns:
        The fitted order; 2 for an exact first-order prediction.

    Raises:
        ValueError: If a step size or error is not positive, for example because an error was rounded to zero.
    """
    if not (bool((etas > 0).all()) and bool((errors > 0).all())):
        raise ValueError("step sizes and errors must be positive; use larger step sizes or float64")
    x, y = torch.log(etas.double()), torch.log(errors.double())
    x = x - x.mean()
    return float(x @ y / (x @ x))
