"""Which prompts the images of a round go to: the same number to each, or until enough of a prompt's are accepted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tally:
    """How a prompt stands in a round.

    Attributes:
        drawn: Candidates it has got.
        accepted: Those the selecting judge says yes to.
        best: The judge's highest log-odds of yes so far; -inf before the first candidate.
    """

    drawn: int = 0
    accepted: int = 0
    best: float = -math.inf

    def after(self, logits: Sequence[float], bar: float) -> Tally:
        """The same prompt with further candidates, of these log-odds of yes; from ``bar`` on one is accepted."""
        accepted = sum(logit >= bar for logit in logits)
        return Tally(self.drawn + len(logits), self.accepted + accepted, max(self.best, *logits))


@dataclass(frozen=True)
class Wave:
    """Candidates that are drawn before anything is decided again.

    Attributes:
        prompts: Places of the prompts in the round's list, ascending.
        first: Index of the first candidate that each of them gets.
        images: How many each of them gets.
    """

    prompts: tuple[int, ...]
    first: int
    images: int

    @property
    def indices(self) -> range:
        """Indices of the candidates that each prompt gets."""
        return range(self.first, self.first + self.images)

    def batches(self, images: int) -> list[tuple[int, ...]]:
        """Return the prompts in batches of at most ``images`` candidates; a batch holds one prompt at least.

        Whole batches are shared out and skipped: tensors that are computed together never depend on ranks or kills.
        """
        size = max(1, images // self.images)
        return [self.prompts[start : start + size] for start in range(0, len(self.prompts), size)]


class Allocation(ABC):
    """How the images of a round are shared out; every process of a run comes to the same waves."""

    @abstractmethod
    def next_wave(self, tallies: Sequence[Tally], candidates: int) -> Wave | None:
        """What to draw next; ``None`` when the round is complete.

        Args:
            tallies: How each prompt stands, in order.
            candidates: Images for each prompt on average: the budget is as many times the number of prompts.
        """

    @abstractmethod
    def recipe(self, threshold: float) -> dict[str, Any]:
        """What the round depends on beside its plan, as the pool stores it.

        Args:
            threshold: Least probability of yes that counts as accepted.
        """


class FixedCandidates(Allocation):
    """Every prompt gets the same number of candidates, whatever the judge says of them (Algorithm 1)."""

    def next_wave(self, tallies: Sequence[Tally], candidates: int) -> Wave | None:
        """All of them at once."""
        begun = any(tally.drawn for tally in tallies)
        return None if begun or not tallies else Wave(tuple(range(len(tallies))), 0, candidates)

    def recipe(self, threshold: float) -> dict[str, Any]:
        """Nothing: the plan says it all."""
        return {}


@dataclass(frozen=True)
class UntilAccepted(Allocation):
    """Draws in waves and passes over the prompts that have enough; what they save goes to those that have not.

    A wave is judged before the next one is drawn. Where the budget does not reach every prompt that is short, those
    with the fewest accepted candidates come first and, among equals, those the judge came closest to accepting.

    Args:
        enough: Accepted candidates after which a prompt gets no more.
        wave: Candidates of a prompt in one wave: 1 spends least, more make larger batches.
        most: Candidates after which a prompt is given up.
    """

    enough: int = 1
    wave: int = 2
    most: int = 64

    def __post_init__(self) -> None:
        for name in ("enough", "wave"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.most < self.wave:
            raise ValueError(f"most must be at least the {self.wave} candidates of one wave, got {self.most}")

    def next_wave(self, tallies: Sequence[Tally], candidates: int) -> Wave | None:
        """The prompts that are short, as far as the budget goes.

        Raises:
            ValueError: When the budget does not reach every prompt once.
        """
        if self.wave > candidates:
            raise ValueError(
                f"waves of {self.wave} do not fit a budget of {candidates} candidates a prompt; lower allocation.wave"
            )
        # whoever is short has been in every wave so far
        first = max((tally.drawn for tally in tallies), default=0)
        short = [i for i, t in enumerate(tallies) if t.accepted < self.enough and first + self.wave <= self.most]
        left = candidates * len(tallies) - sum(tally.drawn for tally in tallies)
        first_come = sorted(short, key=lambda i: (tallies[i].accepted, -tallies[i].best))
        chosen = sorted(first_come[: left // self.wave])
        return Wave(tuple(chosen), first, self.wave) if chosen else None

    def recipe(self, threshold: float) -> dict[str, Any]:
        """The rule, and what it takes for accepted."""
        return {"allocation": {"name": "until accepted", **asdict(self), "threshold": threshold}}
