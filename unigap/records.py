"""The nouns that travel from room to room: a prompt, what was drawn for it, what was said of the drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """One text-to-image prompt.

    Attributes:
        id: Stable name, unique within its prompt set; seeds and pool rows are keyed by it.
        text: What the model is asked to draw.
        category: Kind of skill the prompt tests, e.g. ``"spatial"``.
        difficulty: ``"easy"``, ``"medium"``, ``"hard"``, or ``"any"`` where the set has no tiers.
        split: The part of the set it belongs to, e.g. ``"test"``.
        truth: Structured truth as JSON where the set has one, else ``""``.
    """

    id: str
    text: str
    category: str = "any"
    difficulty: str = "any"
    split: str = ""
    truth: str = ""


@dataclass(frozen=True)
class Candidate:
    """One image the model drew for a prompt, kept as the codes it sampled (never re-encoded).

    Attributes:
        prompt: The prompt it was drawn for.
        round: Number of the sampling round, from 0.
        index: Which of the round's N candidates for this prompt, from 0.
        seed: The sampling seed, a function of (run seed, round, prompt id, index) only.
        codes: Image tokens, int32, shape (M,).
        logp: Log-likelihood of ``codes`` given the prompt at temperature 1 without guidance, in nats.
    """

    prompt: Prompt
    round: int
    index: int
    seed: int
    codes: np.ndarray = field(compare=False, repr=False)
    logp: float

    @property
    def id(self) -> str:
        """Name of the candidate, unique within a pool."""
        return f"{self.prompt.id}@{self.round}.{self.index}"


@dataclass(frozen=True)
class Judgment:
    """What one judge said of one candidate.

    Attributes:
        candidate_id: The candidate's ``id``.
        judge: Name of the judge, e.g. ``"self"`` or ``"oracle"``.
        logit: Log-odds of "yes, this is what was asked", in (-inf, inf).
        mass: P(yes) + P(no) of a judge that answers in words, in [0, 1]; None of others, and where it was not measured.
    """

    candidate_id: str
    judge: str
    logit: float
    mass: float | None = None

    @property
    def p_yes(self) -> float:
        """Probability of "yes", in [0, 1]."""
        return 1.0 / (1.0 + math.exp(-self.logit)) if self.logit >= 0 else 1.0 - 1.0 / (1.0 + math.exp(self.logit))


@dataclass(frozen=True)
class Pair:
    """A preference between two candidates for the same prompt.

    Attributes:
        chosen: The candidate the judge was surest of.
        rejected: The candidate the judge rejected most firmly.
    """

    chosen: Candidate
    rejected: Candidate

    @property
    def prompt(self) -> Prompt:
        """The prompt both were drawn for."""
        return self.chosen.prompt
