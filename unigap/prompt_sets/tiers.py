"""How hard a prompt is, from what it claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EASY, MEDIUM = 2, 4
"""The most claims of an easy and of a medium prompt."""


def tier(claims: int) -> str:
    """The difficulty of a prompt that makes so many claims.

    A claim is one thing that can be wrong in the picture by itself: that an object is there, its number where that is
    not one, each attribute, each relation. Benchmarks publish no tiers and arXiv 2507.16663 names easy, medium and hard
    without a rule, so the rule is ours; it puts the tiers where those of the embedded world are.

    Args:
        claims: Number of claims in the prompt's structured truth; 0 where it has none.

    Returns:
        ``"easy"`` up to 2 claims, ``"medium"`` up to 4, ``"hard"`` above, ``"any"`` where nothing is known.
    """
    if claims == 0:
        return "any"
    return "easy" if claims <= EASY else "medium" if claims <= MEDIUM else "hard"


def claims_of_objects(include: Sequence[Mapping[str, Any]]) -> int:
    """Claims in GenEval's list of what must be there: ``{"class", "count", "color"?, "position"?}``."""
    return sum(1 + (item["count"] > 1) + ("color" in item) + ("position" in item) for item in include)
