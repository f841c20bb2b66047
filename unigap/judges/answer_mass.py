"""Check that a judge answers yes or no at all: the probability mass of the two answers."""

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
"""Mean probability of yes or no below which a warning is printed; trained judges have above 0.9."""
REFUSE_BELOW = 1e-9
"""Mean probability below which the run stops: the log-odds compare two answers that the model never gives."""


class AnsweringJudge(Judge):
    """A judge that is a language model and answers yes/no questions."""

    @abstractmethod
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        """Return log-odds of yes, as in ``logits``, and the probability of yes or no, both (B,).

        Raises:
            ValueError: The model almost never answers yes or no, see ``check_mass``.
        """

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return log-odds of yes, float32 (B,)."""
        return self.answers(model, candidates, pixels_BCHW).logit


def check_mass(judge: str, mass_B: torch.Tensor) -> None:
    """Refuse a judge that almost never answers yes or no; warn if it rarely does.

    Args:
        judge: Name of the judge.
        mass_B: Probability of yes or no for each image.

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
    """Print the warning once for each judge."""
    print(
        f"warning: judge {judge!r} answers yes or no with a probability below {WARN_BELOW:.1%}, so its log-odds may "
        "say little; ask another question (unigap judge agreement shows the probability)",
        file=sys.stderr,
    )


def joined(parts: Sequence[Answers], like: torch.Tensor) -> Answers:
    """Concatenate the answers of several batches; for no batches return empty tensors on the device of ``like``."""
    if not parts:
        return Answers(like.new_zeros(0), like.new_zeros(0))
    return Answers(torch.cat([part.logit for part in parts]), torch.cat([part.mass for part in parts]))
