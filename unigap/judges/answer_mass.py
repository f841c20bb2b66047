"""Whether a judge answers yes or no at all: how much of its probability the two words have."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch

from unigap.judges.base import Judge
from unigap.models.base import Answers, UnifiedModel
from unigap.records import Candidate

WARN_BELOW = 1e-3
"""Mean probability of yes or no below which a judge nearly always says something else; trained ones have above 0.9."""
REFUSE_BELOW = 1e-9
"""Below it the log-odds are those of two words that are never said, as of a model that thinks before it answers."""


class AnsweringJudge(Judge):
    """A judge that is a language model, asked questions that it answers yes or no."""

    @abstractmethod
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        """Log-odds of yes, as ``logits`` gives them, and the probability of yes or no, both (B,).

        Raises:
            ValueError: Yes and no are practically never said, see ``check_mass``.
        """

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Log-odds of yes, float32 (B,)."""
        return self.answers(model, candidates, pixels_BCHW).logit


def check_mass(judge: str, mass_B: torch.Tensor) -> None:
    """Make sure that a judge answers yes or no; warn where it mostly does not.

    Args:
        judge: Name of the judge.
        mass_B: Probability of yes or no of each image.

    Raises:
        ValueError: The mean is below ``REFUSE_BELOW``.
    """
    mean = mass_B.double().mean().item() if len(mass_B) else 1.0
    if mean < REFUSE_BELOW:
        raise ValueError(
            f"judge {judge!r} answers neither yes nor no (together they have a probability of {mean:.0e}); ask another "
            "question, or take a model that answers at once"
        )
    if mean < WARN_BELOW:
        _warn(judge)


@lru_cache
def _warn(judge: str) -> None:
    """Says it once for each judge."""
    print(
        f"warning: judge {judge!r} answers yes or no with a probability below {WARN_BELOW:.1%}, so its log-odds may "
        "say little; ask another question (unigap judge agreement shows the probability)",
        file=sys.stderr,
    )


def joined(parts: Sequence[Answers], like: torch.Tensor) -> Answers:
    """Answers of several batches as one; of none as empty tensors on the device of ``like``."""
    if not parts:
        return Answers(like.new_zeros(0), like.new_zeros(0))
    return Answers(torch.cat([part.logit for part in parts]), torch.cat([part.mass for part in parts]))
