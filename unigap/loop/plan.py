"""How a round is drawn: candidates a prompt, sampling recipe, batch size and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unigap.judges import Judge, immediate, judge_recipes
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.seeds import seed_of_part

SELECTS = "selects"
"""Key of a round's recipe: the selecting judge, where it answers after the round."""


@dataclass(frozen=True)
class RoundPlan:
    """How a round is drawn.

    Args:
        candidates: N, candidates for each prompt; with an allocation, the average over prompts.
        sampling: Temperature, guidance and filters.
        images_per_batch: Most images sampled at once. Bounds memory, and is the unit of work shared between processes.
        seed: Part of every sampling seed; null follows the run's seed by the rule of the plan's owner.
    """

    candidates: int = 8
    sampling: SamplingRecipe = field(default_factory=SamplingRecipe)
    images_per_batch: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("candidates", "images_per_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    def seeded(self, part: str) -> RoundPlan:
        """Return the plan with its seed as a number.

        Args:
            part: What the plan is for, a name in `unigap.seeds.PARTS`; gives the seed where none is set.
        """
        return dataclasses.replace(self, seed=seed_of_part(part, self.seed))

    @property
    def sampling_seed(self) -> int:
        """The seed as a number; without a seed and a part, the pool's."""
        return seed_of_part("pool", self.seed)

    def recipe(self, model: UnifiedModel, judges: Sequence[Judge]) -> dict[str, Any]:
        """Return everything that determines a round, as the pool stores it.

        Args:
            model: The model that samples.
            judges: The selecting judge first, then the external one.
        """
        depends = dataclasses.asdict(self) | {"seed": self.sampling_seed, "judges": judge_recipes(immediate(judges))}
        if judges and judges[0].deferred:  # its verdicts come later, so it is not among the judges of the round
            depends[SELECTS] = judges[0].name
        del depends["images_per_batch"]
        return depends | {"weights": model.weights_digest()}
