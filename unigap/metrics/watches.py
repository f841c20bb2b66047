"""Watch figures of a model over the validations of a run: a sequential test of whether one has become worse.

A figure is the mean of one number for each unit, e.g. for each prompt, so that two validations are compared on the same
units. Validations are numbered from 0, the one before training.

**What is tested.** At validation k, each of W watches averages its figure over the validations since its best one, and
compares that average with the best one: one unlucky validation counts less than lasting damage.
The null hypothesis of a run: after no validation did the expected value of a figure, averaged like this, become worse
by more than its tolerance.

**Guarantee.** Validation k spends ``error_rate / (k (k + 1))`` (alpha spending, Lan and DeMets, Biometrika 1983); the
sum over all k is ``error_rate``, so the number of validations need not be known. This is divided by W and by the k
earlier validations that might have been the best one. By the union bound, the probability that any watch of a run fires
although the null hypothesis holds is at most ``error_rate``, however watches and validations depend on each other, and
however the best one was chosen. Each test is a paired one-sided t-test over units. Its level is asymptotic in the
number of units, which must be a random sample that training never sees.

Shape legend: U units, S samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from unigap.estimate import Estimate
from unigap.metrics.student import quantile, tail

LEAST_UNITS = 8
"""Units in two validations below which nothing is concluded."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class UnitValues:
    """One number for each unit.

    Attributes:
        unit_U: Ids of the units, int64, ascending and distinct.
        value_U: Their numbers, float64.
    """

    unit_U: Tensor
    value_U: Tensor

    @classmethod
    def means(cls, unit_S: Tensor, value_S: Tensor) -> Self:
        """Return the mean of each unit's samples."""
        unit_U, place_S = torch.unique(unit_S.cpu(), return_inverse=True)
        sum_U = torch.zeros(len(unit_U), dtype=torch.float64).index_add(0, place_S, value_S.cpu().double())
        return cls(unit_U, sum_U / torch.bincount(place_S, minlength=len(unit_U)))

    @property
    def mean(self) -> float:
        """The figure."""
        return float(self.value_U.mean())


@dataclass(frozen=True)
class Comparison:
    """The means of a figure now and before on the units of both, with their variances.

    Attributes:
        now: Mean now; nan without a common unit.
        before: Mean before.
        now_variance: Variance of the mean now.
        before_variance: Variance of the mean before.
        covariance: Their covariance.
        n: Number of units in both.
    """

    now: float
    before: float
    now_variance: float
    before_variance: float
    covariance: float
    n: int

    @property
    def moved(self) -> float:
        """Now minus before."""
        return self.now - self.before

    def error(self, now: float, before: float) -> float:
        """Return the standard error of a linear combination of both means with these weights."""
        cross = 2 * now * before * self.covariance
        return math.sqrt(max(0.0, now**2 * self.now_variance + before**2 * self.before_variance + cross))

    def difference(self) -> Estimate:
        """Return now minus before with its 95 % interval, for this comparison alone."""
        if self.n < LEAST_UNITS:
            return Estimate(self.moved, math.nan, math.nan, self.n)
        reach = quantile((1 + CONFIDENCE) / 2, self.n - 1) * self.error(1, -1)
        return Estimate(self.moved, self.moved - reach, self.moved + reach, self.n)


def compared(now: UnitValues, before: UnitValues) -> Comparison:
    """Compare a figure now and before on the units of both."""
    now_U = now.value_U[torch.isin(now.unit_U, before.unit_U)]
    before_U = before.value_U[torch.isin(before.unit_U, now.unit_U)]
    n = len(now_U)
    if n < 2:
        return Comparison(float(now_U.mean()), float(before_U.mean()), 0.0, 0.0, 0.0, n)
    (now_variance, covariance), (_, before_variance) = (torch.cov(torch.stack([now_U, before_U])) / n).tolist()
    return Comparison(float(now_U.mean()), float(before_U.mean()), now_variance, before_variance, covariance, n)


@dataclass(frozen=True)
class Watch:
    """A figure that is watched.

    Attributes:
        name: Name of the figure.
        worse: Whether it is worse when it is ``lower``, ``higher``, or further ``away`` from 0.
        tolerance: Change for the worse that is ignored, >= 0.
        relative: Whether the tolerance is a share of the value before.
    """

    name: str
    worse: Literal["lower", "higher", "away"]
    tolerance: float
    relative: bool = False

    def is_better(self, value: float, than: float) -> bool:
        """Return whether a value of the figure is better than another."""
        if self.worse == "lower":
            return value > than
        return value < than if self.worse == "higher" else abs(value) < abs(than)

    def p_value(self, found: Comparison) -> float:
        """Return the p-value of "not worse by more than the tolerance".

        A figure that moves away from 0 has done so on one side of 0, so both signs of the value before must be rejected
        on that side (an intersection-union test), and two sides are tried.
        """
        if self.worse == "away":
            sides = [max(self._upper(found, side, -1), self._upper(found, side, 1)) for side in (1, -1)]
            return min(1.0, 2 * min(sides))
        sign = 1 if self.worse == "higher" else -1
        return self._upper(found, sign, -sign)

    def _upper(self, found: Comparison, now: float, before: float) -> float:
        """Return the p-value of "``now`` and ``before``, weighted, sum to the tolerance at most"."""
        if found.n < LEAST_UNITS:
            return 1.0
        if self.relative:
            before -= self.tolerance
        excess = now * found.now + before * found.before - (0 if self.relative else self.tolerance)
        error = found.error(now, before)
        if error == 0:
            return 0.0 if excess > 0 else 1.0
        return tail(excess / error, found.n - 1)


def level(error_rate: float, validation: int, watches: int) -> float:
    """Return the level of each test at a validation, see the guarantee above.

    Args:
        error_rate: Probability of any false alarm in a run, in (0, 1).
        validation: k >= 1.
        watches: W >= 1.
    """
    return error_rate / (validation * (validation + 1)) / (validation * watches)


@dataclass(frozen=True)
class Finding:
    """A figure at a validation.

    Attributes:
        now: The figure.
        change: Now minus the validation before training, with a 95 % interval for this one comparison.
        since: Number of the best validation before this one.
        from_best: All validations since then, averaged, compared with it.
        p_value: That of the watch; 1 for a new best.
    """

    now: float
    change: Estimate
    since: int
    from_best: Comparison
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return dataclasses.asdict(self) | {"change": self.change.to_dict()}


class WatchRecord:
    """What is kept of the validations of a run for one watch: the first, the best, and the sum since the best.

    Args:
        watch: The watch.
        start: The figure before training.
    """

    def __init__(self, watch: Watch, start: UnitValues) -> None:
        self.watch, self.start = watch, start
        self._begin(0, start)

    def _begin(self, validation: int, best: UnitValues) -> None:
        self.best_at, self.best = validation, best
        self._since: tuple[Tensor, Tensor] = (best.unit_U[:0], best.value_U[:0])

    def add(self, validation: int, now: UnitValues) -> Finding:
        """Add the figure of a validation; return how it compares.

        Args:
            validation: Its number, >= 1.
            now: The figure.
        """
        change, since, best = compared(now, self.start).difference(), self.best_at, self.best
        if self.watch.is_better(now.mean, best.mean):
            self._begin(validation, now)
            return Finding(now.mean, change, since, compared(now, best), 1.0)
        units, values = self._since
        self._since = torch.cat([units, now.unit_U]), torch.cat([values, now.value_U])
        found = compared(UnitValues.means(*self._since), best)
        return Finding(now.mean, change, since, found, self.watch.p_value(found))

    def forget(self) -> None:
        """Forget the validations since the best one: their weights are gone."""
        self._begin(self.best_at, self.best)

    def state_dict(self) -> dict[str, Any]:
        """Return the record as tensors and numbers."""
        start, best = ((values.unit_U, values.value_U) for values in (self.start, self.best))
        return {"start": start, "best": best, "best_at": self.best_at, "since": self._since}

    @classmethod
    def from_state(cls, watch: Watch, state: Mapping[str, Any]) -> WatchRecord:
        """Return a record as ``state_dict`` gave it."""
        record = cls(watch, UnitValues(*state["start"]))
        record._begin(state["best_at"], UnitValues(*state["best"]))
        record._since = tuple(state["since"])
        return record
