"""The records shared by all packages: prompt, candidate, judgment and pair."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
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
class DrawingFormat:
    """Type and shape of the drawings of a pool; a pool without one holds codes, int32 (M,).

    Attributes:
        dtype: ``"int32"`` for codes, stored in the tables, or ``"float16"`` for latents, stored in files of their own.
        shape: Shape of one drawing, e.g. (M, C).
    """

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # a list when read from JSON
        if self.dtype not in ("int32", "float16"):
            raise ValueError(f"drawings are stored as int32 or float16, not as {self.dtype!r}")
        if not self.shape or any(type(side) is not int or side < 1 for side in self.shape):
            raise ValueError(f"the shape of a drawing must be whole numbers >= 1, got {self.shape!r}")

    @property
    def is_latent(self) -> bool:
        """Whether the drawings are latents, stored in files of their own."""
        return self.dtype == "float16"

    def check(self, name: str, drawing: np.ndarray) -> np.ndarray:
        """Return a drawing in this type.

        Raises:
            ValueError: It has another shape or kind of number, or latents are not finite in float16.
        """
        kind = np.floating if self.is_latent else np.integer
        if drawing.shape != self.shape or not np.issubdtype(drawing.dtype, kind):
            raise ValueError(
                f"drawing of candidate {name!r} is {drawing.dtype} {drawing.shape}, not {self.dtype} {self.shape} as "
                "the pool's"
            )
        with np.errstate(over="ignore"):
            stored = drawing.astype(self.dtype)
        if self.is_latent and not np.isfinite(stored).all():
            raise ValueError(f"drawing of candidate {name!r} is not finite in {self.dtype}; it must be")
        return stored


class StoredDrawing(Protocol):
    """A drawing in a pool, or numbers of its tokens, read when they are needed."""

    def read(self) -> np.ndarray:
        """Return a new array."""


@dataclass(frozen=True)
class Candidate:
    """One image sampled for a prompt, stored as the model's drawing of it (never re-encoded).

    Attributes:
        prompt: The prompt.
        round: Number of the sampling round, from 0.
        index: Number of the candidate among those of this prompt and round, from 0.
        seed: The sampling seed, a function of (run seed, round, prompt id, index) only.
        stored: The drawing, or where to read it; see ``drawing``.
        logp: Log-likelihood of the drawing given the prompt at temperature 1 without guidance, in nats; ``None`` if the
            model has none.
        behaviour: Log-probability of each token under the recipe it was sampled with, or where to read it; ``None``
            where no objective asks for it; see ``behaviour_M``.
    """

    prompt: Prompt
    round: int
    index: int
    seed: int
    stored: np.ndarray | StoredDrawing = field(compare=False, repr=False)
    logp: float | None
    behaviour: np.ndarray | StoredDrawing | None = field(default=None, compare=False, repr=False)

    @property
    def drawing(self) -> np.ndarray:
        """What the model decodes to pixels: image codes, int32 (M,) or (M, D), or latents, float16 (M, C)."""
        return self.stored if isinstance(self.stored, np.ndarray) else self.stored.read()

    @property
    def behaviour_M(self) -> np.ndarray | None:
        """Log-probability of each token under the recipe it was sampled with, in nats, float32 (M,)."""
        stored = self.behaviour
        return stored if stored is None or isinstance(stored, np.ndarray) else stored.read()

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
