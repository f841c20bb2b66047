"""The records shared by all packages: prompt, candidate, judgment and pair."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """One text-to-image prompt.

    Attributes:
        id: Stable name, unique within its prompt set; the key of seeds and pool rows.
        text: Text that the model gets.
        category: Skill that the prompt tests, e.g. ``"spatial"``.
        difficulty: ``"easy"``, ``"medium"``, ``"hard"``, or ``"any"`` if the set has no difficulties.
        split: Split of the set, e.g. ``"test"``.
        truth: Structured truth as JSON; ``""`` if the set has none.
    """

    id: str
    text: str
    category: str = "any"
    difficulty: str = "any"
    split: str = ""
    truth: str = ""


@dataclass(frozen=True)
class Candidate:
    """One image sampled for a prompt, stored as the model's drawing of it (never re-encoded).

    Attributes:
        prompt: The prompt.
        round: Number of the sampling round, from 0.
        index: Number of the candidate among those of this prompt and round, from 0.
        seed: The sampling seed, a function of (run seed, round, prompt id, index) only.
        drawing: What the model decodes to pixels: image codes, int32 (M,) or (M, D), or latents, float16 (M, C).
        logp: Log-likelihood of the drawing given the prompt at temperature 1 without guidance, in nats; ``None`` if the
            model has none.
    """

    prompt: Prompt
    round: int
    index: int
    seed: int
    drawing: np.ndarray = field(compare=False, repr=False)
    logp: float | None

    @property
    def id(self) -> str:
        """Name of the candidate, unique within a pool."""
        return f"{self.prompt.id}@{self.round}.{self.index}"


@dataclass(frozen=True)
class Judgment:
    """The judgment of one judge on one candidate.

    Attributes:
        candidate_id: The candidate's ``id``.
        judge: Name of the judge, e.g. ``"self"`` or ``"oracle"``.
        logit: Log-odds of "yes, this image shows the prompt", in (-inf, inf).
        mass: P(yes) + P(no) of a judge that answers in text, in [0, 1]; None for other judges, or if not measured.
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
        chosen: The candidate with the highest logit.
        rejected: The candidate with the lowest logit.
    """

    chosen: Candidate
    rejected: Candidate

    @property
    def prompt(self) -> Prompt:
        """The prompt of both."""
        return self.chosen.prompt
