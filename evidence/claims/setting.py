"""What all arms share: the model they start from, the prompts, and how they are measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from unigap.loop.plan import RoundPlan
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.families import load_model
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Prompt

HARD = (("count", "medium"), ("count", "hard"), ("spatial", "medium"), ("spatial", "hard"))
"""Cells of the hard set: categories and tiers, chosen before any prompt of theirs was drawn for."""


@dataclass(frozen=True)
class Setting:
    """The setting of the arms.

    Attributes:
        checkpoint: The model they all start from.
        weights: Fingerprint of its weights.
        cfg: Guidance scale it draws with.
        per_cell: Training prompts for each (category, difficulty).
        split: Split of the prompts that are measured on: ``test``, or ``validation`` to choose between recipes.
        skip: Test prompts of each (category, difficulty) left out, because other figures were tuned on them.
        test_per_cell: Prompts of each (category, difficulty) measured on, after those.
        test_candidates: Images drawn for each of them.
        exam: Rendered pictures on which understanding is examined.
        batch_size: Rows a step.
    """

    checkpoint: str = "shapes"
    weights: str = ""
    cfg: float = 1.0
    per_cell: int = 40
    split: str = "test"
    skip: int = 20
    test_per_cell: int = 40
    test_candidates: int = 4
    exam: int = 600
    batch_size: int = 32

    def recipe(self) -> dict[str, object]:
        """What results depend on, as plain JSON; the folder's name does not count, the weights do."""
        settings = dataclasses.asdict(self)
        del settings["checkpoint"]
        return settings

    def as_the_checkpoint_asks(self) -> Setting:
        """The same with the fingerprint of the model, and the guidance it asks for."""
        model = self.open()
        return dataclasses.replace(self, weights=model.weights_digest(), cfg=model.usual_cfg)

    def plan(self, candidates: int, seed: int) -> RoundPlan:
        """How the arms draw."""
        return RoundPlan(candidates, SamplingRecipe(cfg=self.cfg), seed=seed)

    def open(self, **options: Any) -> UnifiedModel:
        """The model all arms start from, with options of its class."""
        return load_model(self.checkpoint, **options)

    def train_prompts(self, prompts: str) -> list[Prompt]:
        """Prompts to improve on: ``standard`` or ``hard``."""
        return _kept(load_prompts("shapes", "improve", self.per_cell), prompts)

    def test_prompts(self, prompts: str) -> list[Prompt]:
        """Prompts to measure on; of the test split, those after the first ``skip`` of each cell."""
        if self.split != "test":
            return _kept(load_prompts("shapes", self.split, self.test_per_cell), prompts)
        tuned = {prompt.id for prompt in load_prompts("shapes", "test", self.skip)} if self.skip else set()
        every = load_prompts("shapes", "test", self.skip + self.test_per_cell)
        return _kept([prompt for prompt in every if prompt.id not in tuned], prompts)


def _kept(prompts: list[Prompt], name: str) -> list[Prompt]:
    if name == "standard":
        return prompts
    assert name == "hard", name
    return [prompt for prompt in prompts if (prompt.category, prompt.difficulty) in HARD]
