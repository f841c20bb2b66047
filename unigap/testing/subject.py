"""The model under check, with the texts, seeds and tolerances of the checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from unigap.models.base import PromptBatch, Samples, SamplingRecipe, UnifiedModel

# Shape legend: B prompts, N candidates a prompt, R = B * N images.

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings")
"""Prompts of different length."""
QUESTIONS = ("Does this image describe a red circle?", f"Does this image describe {TEXTS[1]}?")
"""Yes-no questions of different length."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
HALF_TOLERANCE = 0.25
"""Largest difference of log-probabilities, in nats: in float32, and in half precision, which rounds logits."""


class Broken(Exception):
    """A promise does not hold; the message says what was found."""


def must(holds: bool | torch.Tensor, found: str) -> None:
    """Raise ``Broken`` with what was found, unless the promise holds."""
    if not holds:
        raise Broken(found)


@dataclass(frozen=True)
class Subject:
    """A model and what it is asked.

    Attributes:
        model: The model; every check leaves it as it was.
        texts: Two or more prompts, the first shorter than the second.
        questions: Two or more yes-no questions.
        candidates: Images sampled for each prompt.
        reload: Loads the model from a folder that ``save`` wrote; ``None`` leaves the check of saving out.
    """

    model: UnifiedModel
    texts: Sequence[str] = TEXTS
    questions: Sequence[str] = QUESTIONS
    candidates: int = 2
    reload: Callable[[Path], UnifiedModel] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.texts) < 2 or len(self.questions) < 2:
            raise ValueError("give at least two prompts and two questions")
        if self.candidates < 2:
            raise ValueError(f"candidates must be >= 2, got {self.candidates}")

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def tolerance(self) -> float:
        """Largest difference of two computations of one log-probability, in nats."""
        dtypes = {parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point()}
        return max(TOLERANCE.get(dtype, HALF_TOLERANCE) for dtype in dtypes)

    @property
    def seeds_BN(self) -> torch.Tensor:
        """One seed a candidate, int64."""
        count = len(self.texts) * self.candidates
        return torch.arange(count).view(len(self.texts), -1) * 7919 + 2**40

    @cached_property
    def prompt(self) -> PromptBatch:
        """The prompts."""
        return self.model.encode_prompt(self.texts)

    @cached_property
    def samples(self) -> Samples:
        """Images of the prompts, sampled once."""
        return self.model.sample_images(self.prompt, self.seeds_BN, SamplingRecipe())

    @property
    def drawings_R(self) -> torch.Tensor:
        """The drawings of ``samples``, prompt by prompt."""
        return self.samples.drawings_BN.flatten(0, 1)

    @cached_property
    def pixels_RCHW(self) -> torch.Tensor:
        """The sampled images."""
        return self.model.decode(self.drawings_R)

    @property
    def noise_R(self) -> torch.Tensor | None:
        """One noise seed an image; ``None`` for a model with an exact likelihood."""
        return None if self.model.exact_likelihood else torch.arange(len(self.drawings_R)) + 2**40

    def logps(self) -> torch.Tensor:
        """Return the log-probability of the sampled images, float32 (R, M)."""
        return self.model.image_logps(self.prompt, self.drawings_R, self.noise_R)

    def same_drawings(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether drawings are equal: codes exactly, latents within the tolerance."""
        if one.shape != other.shape:
            return False
        if one.is_floating_point():
            return torch.allclose(one.float(), other.float(), atol=self.tolerance, rtol=self.tolerance)
        return torch.equal(one, other)


def provides(model: UnifiedModel, member: str) -> bool:
    """Return whether a model's class has a member of its own for an optional one of the protocol."""
    return getattr(type(model), member) is not getattr(UnifiedModel, member)


def largest(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    return (one.detach().double() - other.detach().double()).abs().max().item()
