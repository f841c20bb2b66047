"""Difficulty of a prompt by its number of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EASY, MEDIUM = 2, 4
"""The most claims of an easy and of a medium prompt."""


def tier(claims: int) -> str:
    """Return the difficulty of a prompt with this many claims.

    A claim is a part of the prompt that an image can get wrong by itself: an object, its count if above one, an
    attribute, a relation. Benchmarks publish no tiers, and arXiv 2507.16663 names easy, medium and hard without a rule.
    This rule is our own; its limits are those of the embedded world.

    Args:
        claims: Number of claims in the prompt's structured truth; 0 if it has none.

    Returns:
        ``"easy"`` up to 2 claims, ``"medium"`` up to 4, ``"hard"`` above, ``"any"`` for 0.
    """
    if claims == 0:
        return "any"
    return "easy" if claims <= EASY else "medium" if claims <= MEDIUM else "hard"


def claims_of_objects(include: Sequence[Mapping[str, Any]]) -> int:
    """Count the claims of items in GenEval's form: ``{"class", "count", "color"?, "position"?}``."""
    return sum(1 + (item["count"] > 1) + ("color" in item) + ("position" in item) for item in include)
