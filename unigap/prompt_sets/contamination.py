"""Finds training prompts that are evaluated on: the same text, or nearly the same."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unigap.prompt_sets.loading import normalised
from unigap.records import Prompt

SHINGLE = 6
"""Characters in a shingle: so many that it reaches from an adjective to its noun, which tells "a small blue ring and a
large black ring" from "a large blue ring and a small black ring"; and so few that a plural changes few of them."""


@dataclass(frozen=True)
class Overlap:
    """A training prompt and the held-out prompt it is most like.

    Attributes:
        train: The training prompt.
        held_out: The prompt that is evaluated on.
        similarity: Share of shingles they have in common, in (0, 1].
        same: Whether they are one text once normalised.
    """

    train: Prompt
    held_out: Prompt
    similarity: float
    same: bool


def find_overlaps(train: Sequence[Prompt], held_out: Sequence[Prompt], near: float = 0.9) -> list[Overlap]:
    """Every training prompt that is a held-out one, or nearly, with the held-out prompt it is most like.

    Two texts are nearly the same where the Jaccard index of their sets of character shingles reaches ``near``. All such
    pairs are found: the index holds the rarest shingles of each text, so many that two texts as alike as ``near`` must
    have one of them in common (prefix filtering), and only texts that do are compared.

    Args:
        train: Prompts to train on.
        held_out: Prompts to evaluate on.
        near: Least Jaccard index that is reported, in (0, 1].

    Raises:
        ValueError: When ``near`` is out of range.
    """
    if not 0 < near <= 1:
        raise ValueError(f"near must be in (0, 1], got {near}; 0.9 is the plain choice")
    texts = [normalised(prompt.text) for prompt in held_out]
    first = {text: prompt for text, prompt in zip(reversed(texts), reversed(held_out), strict=True)}
    sets = [shingles(text) for text in texts]
    frequency = Counter(shingle for found in sets for shingle in found)
    index: defaultdict[str, list[int]] = defaultdict(list)
    for number, found in enumerate(sets):
        for shingle in _rarest(found, frequency, near):
            index[shingle].append(number)
    overlaps = []
    for prompt in train:
        text = normalised(prompt.text)
        if text in first:
            overlaps.append(Overlap(prompt, first[text], 1.0, True))
            continue
        found = shingles(text)
        candidates = {number for shingle in _rarest(found, frequency, near) for number in index.get(shingle, ())}
        scored = [(jaccard(found, sets[number]), -number) for number in candidates]
        similarity, number = max(scored, default=(0.0, 0))
        if similarity >= near:
            overlaps.append(Overlap(prompt, held_out[-number], similarity, False))
    return overlaps


def shingles(text: str) -> frozenset[str]:
    """The runs of ``SHINGLE`` characters in a text without its punctuation; a shorter text is its own."""
    plain = " ".join(re.sub(r"[^\w\s]", " ", text).split())
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def _rarest(found: frozenset[str], frequency: Counter[str], near: float) -> list[str]:
    """So many of a text's rarest shingles that another text as alike as ``near`` has one of them among its own."""
    count = len(found) - math.ceil(near * len(found) - 1e-9) + 1
    return sorted(found, key=lambda shingle: (frequency[shingle], shingle))[:count]


def repeats(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts whose normalised text an earlier one has already."""
    seen: set[str] = set()
    again = []
    for prompt in prompts:
        text = normalised(prompt.text)
        if text in seen:
            again.append(prompt)
        seen.add(text)
    return again
