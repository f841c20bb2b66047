"""How the images of a round are shared out: equally, or until a prompt has enough accepted candidates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tally:
    """The state of a prompt in a round.

    Attributes:
        drawn: Candidates sampled so far.
        accepted: Those that the selecting judge accepts.
        best: The judge's highest log-odds of yes so far; -inf before the first candidate.
    """

    drawn: int = 0
    accepted: int = 0
    best: float = -math.inf

    def after(self, logits: Sequence[float], least: float) -> Tally:
        """Return the state after further candidates with these logits; ``least`` is the smallest accepted logit."""
        accepted = sum(logit >= least for logit in logits)
        return Tally(self.drawn + len(logits), self.accepted + accepted, max(self.best, *logits))


@dataclass(frozen=True)
class Wave:
    """Candidates that are sampled before the next decision.

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
    """Share the images of a round out between prompts. Every process of a run computes the same waves."""

    @abstractmethod
    def next_wave(self, tallies: Sequence[Tally], candidates: int) -> Wave | None:
        """Return what to sample next; ``None`` when the round is complete.

        Args:
            tallies: The state of each prompt, in order.
            candidates: Images for each prompt on average: the budget is as many times the number of prompts.
        """

    @abstractmethod
    def recipe(self, threshold: float) -> dict[str, Any]:
        """Return what the round depends on besides its plan, as the pool stores it.

        Args:
            threshold: Least probability of yes that counts as accepted.
        """


class FixedCandidates(Allocation):
    """Give every prompt the same number of candidates (Algorithm 1)."""

    def next_wave(self, tallies: Sequence[Tally], candidates: int) -> Wave | None:
        """Return all candidates in one wave."""
        begun = any(tally.drawn for tally in tallies)
        return None if begun or not tallies else Wave(tuple(range(len(tallies))), 0, candidates)

    def recipe(self, threshold: float) -> dict[str, Any]:
        """Return nothing: the plan determines the round."""
        return {}


@dataclass(frozen=True)
class UntilAccepted(Allocation):
    """Sample in waves, and give the images that finished prompts save to the others.

    A wave is judged before the next one is sampled. If the budget does not reach every unfinished prompt, those with
    the fewest accepted candidates come first and, among equals, those with the highest logit.

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
        """Return the unfinished prompts that the budget reaches.

        Raises:
            ValueError: The budget does not reach every prompt once.
        """
        if self.wave > candidates:
            raise ValueError(
                f"waves of {self.wave} do not fit a budget of {candidates} candidates a prompt; lower allocation.wave"
            )
        # an unfinished prompt has been in every wave so far
        first = max((tally.drawn for tally in tallies), default=0)
        short = [i for i, t in enumerate(tallies) if t.accepted < self.enough and first + self.wave <= self.most]
        left = candidates * len(tallies) - sum(tally.drawn for tally in tallies)
        first_come = sorted(short, key=lambda i: (tallies[i].accepted, -tallies[i].best))
        chosen = sorted(first_come[: left // self.wave])
        return Wave(tuple(chosen), first, self.wave) if chosen else None

    def recipe(self, threshold: float) -> dict[str, Any]:
        """Return the rule and its threshold."""
        return {"allocation": {"name": "until accepted", **asdict(self), "threshold": threshold}}
