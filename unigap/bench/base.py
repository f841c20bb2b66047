"""Benchmark: what is measured in the images of a prompt set, and the rule that scores the answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from unigap.instruments import Instrument
from unigap.judges import Judge, check_early
from unigap.judges.described import Described
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

Row = Mapping[str, Any]
"""The answers about one image, as ``unigap score`` reads them, without the prompt's id."""


class Benchmark(Described):
    """A published benchmark.

    A subclass takes the instruments and judges that it uses as constructor arguments, so that its recipe records them.
    """

    title: ClassVar[str]
    rule: ClassVar[str]
    """Name of its rule in `unigap.evaluation.scoring.benchmarks.RULES`."""
    is_verdict: ClassVar[bool] = False
    """Whether a score of 1 or 0 says that the image is right or wrong, so that the pool can keep it as a verdict."""
    differs: ClassVar[str]
    """How the measurement differs from the published one, for the page of a result."""

    @property
    def scored_by(self) -> str:
        """Name of the rule that gives the figures."""
        return self.rule

    @abstractmethod
    def wanted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that can be scored.

        Raises:
            ValueError: The prompts are of another benchmark, or the instruments do not know what they ask for.
        """

    @abstractmethod
    def answer(
        self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Measure images.

        Args:
            model: The model that sampled them; only its device matters, and to judges that ask it.
            candidates: The candidates, B of them.
            pixels_BCHW: Their images, in [-1, 1].

        Returns:
            A `Row` for each image.
        """

    def check(self) -> None:
        """Check instruments and judges before anything is sampled.

        Raises:
            ValueError: One of them cannot be loaded, or its server is down.
        """
        for name in self.recipe.keys() - {"name"}:
            part = getattr(self, name)
            if isinstance(part, Instrument):
                part.check()
            elif isinstance(part, Judge):
                check_early([part])


def device_of(model: UnifiedModel) -> torch.device:
    """Return the device of a model."""
    return next(model.parameters()).device
