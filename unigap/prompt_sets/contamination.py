"""Find training prompts that are also evaluated on: the same text, or nearly the same."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unigap.prompt_sets.same_text import normalised
from unigap.records import Prompt

SHINGLE = 6
"""Characters in a shingle. Long enough to span an adjective and its noun, which separates "a small blue ring and a
large black ring" from "a large blue ring and a small black ring"; short enough that a plural changes few shingles."""


@dataclass(frozen=True)
class Overlap:
    """A training prompt and the most similar held-out prompt.

    Attributes:
        train: The training prompt.
        held_out: The prompt that is evaluated on.
        similarity: Jaccard index of their shingles, in (0, 1].
        same: Whether their normalised texts are equal.
    """

    train: Prompt
    held_out: Prompt
    similarity: float
    same: bool


def find_overlaps(train: Sequence[Prompt], held_out: Sequence[Prompt], near: float = 0.9) -> list[Overlap]:
    """Return each training prompt that equals or nearly equals a held-out prompt, with the most similar one.

    Two texts are nearly the same if the Jaccard index of their sets of character shingles is at least ``near``. The
    search is exact (prefix filtering): the index holds so many of the rarest shingles of each text that two texts with
    this Jaccard index share at least one of them, and only texts that share one are compared.

    Args:
        train: Prompts to train on.
        held_out: Prompts to evaluate on.
        near: Smallest Jaccard index that is reported, in (0, 1].

    Raises:
        ValueError: ``near`` is out of range.
    """
    if not 0 < near <= 1:
        raise ValueError(f"near must be in (0, 1], got {near}; 0.9 is the usual choice")
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
    """Return all substrings of ``SHINGLE`` characters of a text without punctuation; a shorter text as a whole."""
    plain = " ".join(re.sub(r"[^\w\s]", " ", text).split())
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the size of the intersection over the size of the union, in [0, 1]."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def _rarest(found: frozenset[str], frequency: Counter[str], near: float) -> list[str]:
    """Return so many of a text's rarest shingles that any text with a Jaccard index of ``near`` shares one of them."""
    count = len(found) - math.ceil(near * len(found) - 1e-9) + 1
    return sorted(found, key=lambda shingle: (frequency[shingle], shingle))[:count]


def repeats(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Return the prompts whose normalised text occurs earlier in the list."""
    seen: set[str] = set()
    again = []
    for prompt in prompts:
        text = normalised(prompt.text)
        if text in seen:
            again.append(prompt)
        seen.add(text)
    return again


def check_no_overlap(train: Iterable[Prompt], held_out: Iterable[Prompt]) -> None:
    """Check that no prompt is both trained on and evaluated on.

    Raises:
        ValueError: A prompt occurs on both sides. The message names the first, and the remedy: other evaluation prompts
            if no training prompt would be left, else removal of the shared ones.
    """
    seen = {normalised(prompt.text) for prompt in train}
    found = list(held_out)
    shared = [prompt.text for prompt in found if normalised(prompt.text) in seen]
    if not shared:
        return
    left = seen - {normalised(text) for text in shared}
    remedy = (
        "drop them with: unigap prompts audit TRAIN EVAL --out FILE"
        if left
        else "nothing else is trained on, so name other prompts as data.eval_prompts"
    )
    raise ValueError(f"{len(shared)} evaluation prompts are also trained on, first {shared[0][:60]!r}; {remedy}")
