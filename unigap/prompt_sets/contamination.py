"""Find training prompts that are also evaluated on: the same text, or nearly the same."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unigap.prompt_sets.same_text import normalised
from unigap.records import Prompt

SHINGLE = 6
"""Characters in a shingle. Long enough to span an adjective and its noun, which separates "a small blue ring and a
large black ring" from "a large blue ring and a small black ring"; short enough that a plural changes few shingles."""

FEW = 32
"""Sets that are compared one by one sooner than excluded by more shingles."""
AT_ONCE = 8
"""Shingles that are counted between two looks at what is left."""


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
    search is exact, see `_ShingleIndex.similar`.

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
    # of equally similar prompts the first is reported: it stands for all with the same shingles
    owners: dict[frozenset[str], Prompt] = {}
    for text, prompt in zip(texts, held_out, strict=True):
        owners.setdefault(shingles(text), prompt)
    sets = list(owners)
    index = _ShingleIndex(sets, near)
    overlaps = []
    for prompt in train:
        text = normalised(prompt.text)
        if text in first:
            overlaps.append(Overlap(prompt, first[text], 1.0, True))
            continue
        found = shingles(text)
        scored = [(jaccard(found, sets[number]), -number) for number in index.similar(found)]
        similarity, number = max(scored, default=(0.0, 0))
        if similarity >= near:
            overlaps.append(Overlap(prompt, owners[sets[-number]], similarity, False))
    return overlaps


class _ShingleIndex:
    """Inverted index of sets of shingles.

    Args:
        sets: The sets.
        near: Jaccard index from which two sets are similar, in (0, 1].
    """

    def __init__(self, sets: Sequence[frozenset[str]], near: float) -> None:
        self._near = near
        self._sizes = np.array([len(found) for found in sets], np.int64)
        owners: defaultdict[str, list[int]] = defaultdict(list)
        for number, found in enumerate(sets):
            for shingle in found:
                owners[shingle].append(number)
        self._owners = {shingle: np.array(numbers, np.int32) for shingle, numbers in owners.items()}

    def similar(self, found: frozenset[str]) -> list[int]:
        """Return the numbers of the sets that may be similar to ``found``; all similar sets are among them.

        A similar set lacks at most ``lack`` of the shingles of ``found``, so of any k of them it holds k - ``lack``.
        Rare shingles are counted first, and common ones only while they exclude many sets: prompts made of one template
        share most of theirs.
        """
        lack = len(found) - math.ceil(self._near * len(found) - 1e-9)
        known = sorted((self._owners[shingle] for shingle in found if shingle in self._owners), key=len)
        lack -= len(found) - len(known)
        if lack < 0:
            return []
        holders = np.concatenate(known[: lack + 1])
        if len(holders) <= FEW:
            return self._of_similar_size(np.unique(holders), len(found))
        counted, before = lack + 1, len(holders)
        held = np.bincount(holders, minlength=len(self._sizes))
        numbers = np.flatnonzero(held)
        while FEW < len(numbers) < 0.9 * before and counted < len(known):
            holders = np.concatenate(known[counted : counted + AT_ONCE])
            counted, before = min(counted + AT_ONCE, len(known)), len(numbers)
            held += np.bincount(holders, minlength=len(self._sizes))
            numbers = np.flatnonzero(held >= counted - lack)
        return self._of_similar_size(numbers, len(found))

    def _of_similar_size(self, numbers: np.ndarray, size: int) -> list[int]:
        sizes = self._sizes[numbers]
        fits = (sizes >= self._near * size - 1e-6) & (self._near * sizes <= size + 1e-6)
        return list(numbers[fits].tolist())


def shingles(text: str) -> frozenset[str]:
    """Return all substrings of ``SHINGLE`` characters of a text without punctuation; a shorter text as a whole."""
    plain = " ".join(re.sub(r"[^\w\s]", " ", text).split())
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the size of the intersection over the size of the union, in [0, 1]."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


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
