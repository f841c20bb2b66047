"""Hard negative captions: a prompt with one word changed, so that it no longer fits the image sampled for it."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from unigap.world import class_of_worlds

WORD_GROUPS = (
    ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "gray"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight"),
    ("small", "large"),
    ("tiny", "huge"),
    ("round", "square", "triangular", "rectangular", "oval", "cubic", "cylindrical", "pyramidal"),
    ("wooden", "metallic", "plastic", "glass", "leather", "rubber", "fabric", "fluffy"),
    ("left", "right"),
    ("above", "below"),
    ("on the top of", "under"),
    ("in front of", "behind"),
)
"""Groups of words that exclude each other: swapping one for another of its group makes a true prompt false."""


class Negatives(ABC):
    """Makes a prompt false for an image that shows it."""

    @abstractmethod
    def alter(self, text: str, rng: random.Random) -> str | None:
        """Return the changed prompt, or None if nothing in it can be changed."""


class WordNegatives(Negatives):
    """Swaps one English word for another of its group: colours, counts, sizes, shapes, materials and relations.

    Args:
        groups: Groups of words or phrases that exclude each other.
    """

    def __init__(self, groups: Sequence[Sequence[str]] = WORD_GROUPS) -> None:
        if not groups or any(len(group) < 2 for group in groups):
            raise ValueError("groups must name two or more words each; leave them out for colours, counts and the like")
        self.groups = [tuple(group) for group in groups]

    def alter(self, text: str, rng: random.Random) -> str | None:
        """Return the prompt with one word swapped, or None if it holds no word of any group."""
        found = [
            (match, group)
            for group in self.groups
            for match in re.finditer(rf"\b({'|'.join(map(re.escape, group))})\b", text, re.IGNORECASE)
        ]
        if not found:
            return None
        match, group = rng.choice(found)
        other = rng.choice([word for word in group if word.lower() != match.group().lower()])
        return text[: match.start()] + other + text[match.end() :]


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
