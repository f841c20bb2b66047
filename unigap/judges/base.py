"""Judge interface: log-odds that a generated image shows its prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from unigap.judges.described import Described
from unigap.models.base import UnifiedModel
from unigap.records import Candidate

CERTAIN = 20.0
"""Log-odds of a judge that knows the answer, such as the oracle or people; its "no" is the negative."""


class Judge(Described, ABC):
    """Gives each image log-odds that it shows its prompt.

    A pool stores judgments under the judge's ``name``, and the ``recipe`` with each round. The recipe holds the
    constructor's arguments, so keep each argument in an attribute of the same name.
    """

    deferred: ClassVar[bool] = False
    """True if verdicts arrive after the round is sampled, through ``unigap judge import``, as those of people do."""

    @abstractmethod
    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return log-odds of yes.

        Args:
            model: The model that is trained; only the model's own judges use it.
            candidates: The candidates, B of them.
            pixels_BCHW: Their images, in [-1, 1].

        Returns:
            float32 (B,), finite.
        """


def check_immediate(external: Judge) -> None:
    """Check that an external judge is not deferred: it must judge images as soon as they are sampled.

    Raises:
        ValueError: Its verdicts arrive later, as from people.
    """
    if external.deferred:
        raise ValueError(
            f"external: validation samples new images each time, and the verdicts of {external.name!r} arrive later; "
            "take another judge, and compare the two with unigap judge agreement"
        )


def immediate(judges: Iterable[Judge]) -> list[Judge]:
    """Return the judges that are not deferred: they judge an image as soon as it is sampled."""
    return [judge for judge in judges if not judge.deferred]


def judge_recipes(judges: Iterable[Judge]) -> list[dict[str, Any]]:
    """Return the recipes that a pool stores with a round, without repeats.

    Raises:
        ValueError: Two judges share a name but differ; a pool keeps one verdict under each name.
    """
    recipes: dict[str, dict[str, Any]] = {}
    for judge in judges:
        recipe = judge.recipe
        if recipes.setdefault(judge.name, recipe) != recipe:
            raise ValueError(
                f"two judges are named {judge.name!r} and differ, but a pool keeps one verdict under a name; "
                "leave one of them out"
            )
    return list(recipes.values())


def check_same_judge(judge: Judge, stored: Iterable[Mapping[str, Any]], where: str) -> None:
    """Check that the verdicts stored under a judge's name were given by the same judge.

    Args:
        judge: The judge.
        stored: Recipes of the round's judges, see ``judge_recipes``.
        where: The round, for the message.

    Raises:
        ValueError: The round was judged by a judge of this name with other arguments.
    """
    for recipe in stored:
        if recipe["name"] == judge.name and recipe != judge.recipe:
            changed = sorted(name for name in {*recipe, *judge.recipe} if recipe.get(name) != judge.recipe.get(name))
            raise ValueError(
                f"{where} was judged by another {judge.name!r}: {', '.join(changed)} differ; "
                "take the same judge or a new pool folder"
            )
