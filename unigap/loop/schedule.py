"""When a run redraws, and for which prompts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unigap.records import Prompt

Redraw = Literal["discarded", "all", "solved"]


@dataclass(frozen=True)
class RedrawSchedule:
    """When a curriculum draws new candidates, and for which prompts.

    Args:
        every_n_epochs: Redraw after every so many epochs; 0 does not.
        at_epochs: Redraw after these epochs, counted from 1 (the paper: 10).
        patience: Redraw when the non-unification score on validation prompts, which needs no external judge, has not
            fallen for this many validated epochs; 0 does not.
        redraw: ``discarded``: the prompts without an accepted candidate (Algorithm 2). ``all``: every prompt, so that
            the model learns from its present samples. ``solved``: as many prompts as are discarded, chosen at random
            from the others; the control that separates replay from mere fresh samples.
        every_n_steps: Redraw after every so many optimizer steps, which then make an epoch: the rows of the last round
            in random order, as often as needed; 0 leaves an epoch one pass over the rows.
        prompts: With ``redraw: all``, draw for so many prompts in each round, the first one too, and go through all
            prompts in random order; 0 draws for all at once.
    """

    every_n_epochs: int = 0
    at_epochs: Sequence[int] = ()
    patience: int = 0
    redraw: Redraw = "discarded"
    every_n_steps: int = 0
    prompts: int = 0

    def __post_init__(self) -> None:
        for name in ("every_n_epochs", "patience", "every_n_steps", "prompts"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}; 0 turns it off")
        if any(epoch < 1 for epoch in self.at_epochs):
            raise ValueError(f"at_epochs counts from 1, got {list(self.at_epochs)}")
        if not (self.every_n_epochs or self.at_epochs or self.patience or self.every_n_steps):
            raise ValueError(
                "a schedule that never redraws: set every_n_epochs, at_epochs or patience of CurriculumStage.schedule, "
                "or use SFTStage or DPOStage"
            )
        if self.prompts and self.redraw != "all":
            raise ValueError(f"schedule.prompts goes with redraw=all, got redraw={self.redraw}; set it to 0")

    def is_due(self, epoch: int, gaps: Mapping[int, float]) -> bool:
        """Return whether to redraw after an epoch.

        Args:
            epoch: The epoch, counted from 1.
            gaps: Non-unification score by epoch, of the epochs that were validated.
        """
        due = bool(self.every_n_steps) or epoch in self.at_epochs
        due |= bool(self.every_n_epochs and epoch % self.every_n_epochs == 0)
        return due or bool(self.patience and epoch in stalled_epochs(gaps, self.patience))

    def part(self, prompts: Sequence[Prompt], round: int, seed: int) -> list[Prompt]:
        """Return the prompts of a round that draws for all, or for the next part of all.

        Args:
            prompts: All training prompts.
            round: Number of the round.
            seed: Seed of the order in which parts go through the prompts.
        """
        if not self.prompts:
            return list(prompts)
        rounds_of_pass = -(-len(prompts) // self.prompts)
        number, place = divmod(round, rounds_of_pass)
        order = random.Random(f"{seed}/pass {number}").sample(list(prompts), len(prompts))
        return order[place * self.prompts : (place + 1) * self.prompts]

    def choose(self, prompts: Sequence[Prompt], discarded: Sequence[Prompt], round: int, seed: int) -> list[Prompt]:
        """Return the prompts to redraw.

        Args:
            prompts: All training prompts.
            discarded: Those without an accepted candidate.
            round: Number of the round.
            seed: Seed of the pool.
        """
        if self.redraw == "all":
            return self.part(prompts, round, seed)
        if self.redraw == "discarded":
            return list(discarded)
        left = {prompt.id for prompt in discarded}
        solved = [prompt for prompt in prompts if prompt.id not in left]
        return random.Random(f"{seed}/{round}").sample(solved, min(len(discarded), len(solved)))


def stalled_epochs(gaps: Mapping[int, float], patience: int) -> set[int]:
    """Return the epochs after which a gap has not fallen for ``patience`` validated epochs; each restarts the count.

    Args:
        gaps: The gap by epoch, of the validated epochs; NaN where nothing could be measured.
        patience: Validated epochs without a new minimum, >= 1.

    >>> sorted(stalled_epochs({1: 0.5, 2: 0.5, 4: 0.4, 5: 0.6, 6: 0.4, 7: 0.4}, 2))
    [6]
    """
    best, stalled, found = math.inf, 0, set()
    for epoch, gap in sorted(gaps.items()):
        stalled = 0 if gap < best else stalled + 1
        best = min(best, gap) if gap == gap else best
        if stalled >= patience:
            stalled = 0
            found.add(epoch)
    return found
