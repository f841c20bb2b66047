"""Base of objectives that add a term to another objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unigap.loop.plan import RoundPlan
from unigap.models.base import UnifiedModel
from unigap.objectives.base import Objective
from unigap.records import Candidate


class Wrapper(Objective):
    """An objective around another one that chooses the rows; what it does not define itself, the inner one decides.

    Args:
        generation: The inner objective.
    """

    def __init__(self, generation: Objective) -> None:
        self.generation, self.threshold, self.judges = generation, generation.threshold, generation.judges
        self._take_needs()

    def _take_needs(self) -> None:
        inner = self.generation
        self.needs_behaviour, self.reference_follows = inner.needs_behaviour, inner.reference_follows
        self.needs_stored_references = inner.needs_stored_references

    def prepare(self, model: UnifiedModel, plan: RoundPlan) -> None:
        self.generation.prepare(model, plan)
        self._take_needs()

    def first_round(self, newest: int) -> int:
        return self.generation.first_round(newest)

    def learning_recipe(self) -> dict[str, Any]:
        return self.generation.learning_recipe()

    def use_verdicts(self, verdicts: Mapping[str, Mapping[str, float]]) -> None:
        self.generation.use_verdicts(verdicts)

    def count_rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> dict[str, int]:
        return self.generation.count_rows(candidates, logits)

    def nothing_to_learn(self, logits: Mapping[str, float]) -> str:
        return self.generation.nothing_to_learn(logits)
