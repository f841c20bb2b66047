"""Rank the judged candidates of each prompt, highest log-odds first; a new round costs what its prompts hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

BLOCK = 2**20
"""Candidates that are sorted at a time."""


@dataclass(frozen=True)
class Ranked:
    """Judged candidates, prompt by prompt in the order of the first judged one, highest log-odds first.

    Attributes:
        place_R: Their places.
        prompt_R: The prompt of each, numbered in this order.
    """

    place_R: np.ndarray
    prompt_R: np.ndarray


def tie_breaks(round_N: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """Return numbers that sort as the texts ``round.index`` do, by which equal log-odds are ordered."""
    pairs, inverse = np.unique(round_N.astype(np.int64) << 32 | index_N, return_inverse=True)
    names = [f"{pair >> 32}.{pair & 0xFFFFFFFF}" for pair in pairs.tolist()]
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return rank[inverse.ravel()]


class Ranking:
    """The ranking of candidates that grow in number; their log-odds do not change.

    Attributes:
        count: Candidates that are ranked.
    """

    def __init__(self) -> None:
        self._ranked = Ranked(np.empty(0, np.int32), np.empty(0, np.int32))
        self.count = self._prompts = 0
        self._number_G = np.empty(0, np.int32)

    def extend(self, group_N: np.ndarray, logit_N: np.ndarray, tie_of: Callable[[np.ndarray], np.ndarray]) -> Ranked:
        """Return the ranking of all candidates so far.

        Args:
            group_N: The prompt of each candidate, any number >= 0.
            logit_N: Log-odds of each, NaN without a verdict; those of earlier calls come first.
            tie_of: Returns ``tie_breaks`` of the candidates at some places.
        """
        fresh = np.flatnonzero(~np.isnan(logit_N[self.count :])).astype(np.int32) + np.int32(self.count)
        self.count = len(logit_N)
        if not len(fresh):
            return self._ranked
        for start in range(0, len(fresh), BLOCK):
            self._number(group_N[fresh[start : start + BLOCK]])
        touched = np.zeros(self._prompts, bool)
        touched[self._number_G[group_N[fresh]]] = True
        again = touched[self._ranked.prompt_R]
        place_R = np.concatenate([self._ranked.place_R[again], fresh])
        ranked = _by_prompt(place_R, self._number_G[group_N[place_R]])
        _rank_within_prompts(ranked, logit_N, tie_of)
        if not again.all():
            place_R = np.concatenate([self._ranked.place_R[~again], ranked.place_R])
            ranked = _by_prompt(place_R, np.concatenate([self._ranked.prompt_R[~again], ranked.prompt_R]))
        self._ranked = ranked
        return ranked

    def _number(self, group_F: np.ndarray) -> None:
        """Number the groups that are new, in order."""
        grown = np.full(max(len(self._number_G), int(group_F.max()) + 1), -1, np.int32)
        grown[: len(self._number_G)] = self._number_G
        self._number_G = grown
        groups, firsts = np.unique(group_F, return_index=True)
        groups = groups[np.argsort(firsts)]
        groups = groups[self._number_G[groups] < 0]
        self._number_G[groups] = self._prompts + np.arange(len(groups), dtype=np.int32)
        self._prompts += len(groups)


def _by_prompt(place_R: np.ndarray, prompt_R: np.ndarray) -> Ranked:
    """Sort candidates by prompt and leave those of a prompt in their order; linear in time for two sorted parts."""
    order = np.argsort(prompt_R, kind="stable")
    return Ranked(place_R[order], prompt_R[order])


def _rank_within_prompts(ranked: Ranked, logit_N: np.ndarray, tie_of: Callable[[np.ndarray], np.ndarray]) -> None:
    """Sort the candidates of each prompt in place, whole prompts at a time, so that the keys of all never exist."""
    starts = np.flatnonzero(np.diff(ranked.prompt_R, prepend=np.int32(-1)))
    cuts = np.searchsorted(starts, np.arange(0, len(ranked.place_R) + BLOCK, BLOCK))
    for first, last in pairwise(np.append(starts, len(ranked.place_R))[cuts].tolist()):
        place_B = ranked.place_R[first:last]
        order = np.lexsort((tie_of(place_B), -logit_N[place_B], ranked.prompt_R[first:last]))
        ranked.place_R[first:last] = place_B[order]
