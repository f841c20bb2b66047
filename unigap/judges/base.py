"""What every judge offers: log-odds of "yes, this is what was asked" for each drawing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from unigap.judges.described import Described
from unigap.models.base import UnifiedModel
from unigap.records import Candidate

CERTAIN = 20.0
"""Log-odds with which a judge that is never in doubt speaks."""


class Judge(Described, ABC):
    """Says how sure it is that each image shows what its prompt asks for.

    Judgments are stored under the ``name``; the ``recipe``, with which a pool says how a round was judged, also holds
    the constructor's arguments, so each is kept in an attribute of its name.
    """

    asked_later: ClassVar[bool] = False
    """Whether it speaks after a round is drawn, as people do: its verdicts are those ``unigap judge import`` stored."""

    @abstractmethod
    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Log-odds of yes.

        Args:
            model: The model that is being improved; only the model's own judges look at it.
            candidates: What was drawn, B of them.
            pixels_BCHW: The same as images in [-1, 1].

        Returns:
            float32 (B,), finite.
        """


def check_speaks_at_once(external: Judge) -> None:
    """Make sure that an external judge can be asked while images are drawn.

    Raises:
        ValueError: It is asked later, as people are.
    """
    if external.asked_later:
        raise ValueError(
            f"external: validation draws anew each time, and {external.name!r} is asked later; take another "
            "judge, and compare the two with unigap judge agreement"
        )


def at_once(judges: Iterable[Judge]) -> list[Judge]:
    """Those judges that say something of a drawing the moment it is made."""
    return [judge for judge in judges if not judge.asked_later]


def judge_recipes(judges: Iterable[Judge]) -> list[dict[str, Any]]:
    """What a pool stores of the judges of a round; one that is given twice is stored once.

    Raises:
        ValueError: Two judges of one name differ, though a pool keeps one verdict under each name.
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
    """Make sure that a judge's verdicts in a round are those it would give itself.

    Args:
        judge: The judge.
        stored: What the pool stored of the round's judges, see ``judge_recipes``.
        where: The round, for the message.

    Raises:
        ValueError: A judge of its name spoke there, but was made with other arguments.
    """
    for recipe in stored:
        if recipe["name"] == judge.name and recipe != judge.recipe:
            changed = sorted(name for name in {*recipe, *judge.recipe} if recipe.get(name) != judge.recipe.get(name))
            raise ValueError(
                f"{where} was judged by another {judge.name!r}: {', '.join(changed)} differ; "
                "take the same judge or a new pool folder"
            )
