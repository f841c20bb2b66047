"""Selection of training data from judged candidates: accepted rows, preference pairs, discarded prompts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unigap.loop.verdict_columns import joined_rows, verdict_columns
from unigap.pool import Pool
from unigap.pool.ranking import Ranked
from unigap.records import Candidate, Pair, Prompt

PairRule = Literal["extreme", "closest"]
"""Which rejected candidate is paired with an accepted one."""


@dataclass(frozen=True)
class Selection:
    """The judged candidates that training rows and redraws are chosen from.

    Attributes:
        candidates: Candidates of all rounds so far, in the order of the pool.
        logits: The selecting judge's log-odds of yes, by candidate id; a judge may not have answered for all.
        threshold: Least probability of yes that accepts a candidate.
    """

    candidates: Sequence[Candidate]
    logits: Mapping[str, float]
    threshold: float

    def discarded(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts without an accepted candidate (pool B of Algorithm 1), see `discarded_prompts`."""
        return discarded_prompts(prompts, self.candidates, self.logits, self.threshold)


def select(pool: Pool, judge: str, threshold: float, upto: int) -> Selection:
    """Read what training selects from.

    Args:
        pool: The pool.
        judge: Name of the selecting judge.
        threshold: Least probability of yes that accepts a candidate, in (0, 1).
        upto: Last round to read; -1 reads none.
    """
    return Selection(pool.candidates(upto), pool.logits(judge, upto), threshold)


def threshold_logit(threshold: float) -> float:
    """Return the log-odds of a probability threshold: the one rounding by which images are accepted and counted.

    Args:
        threshold: Least probability of yes that counts as accepted, in (0, 1).

    Raises:
        ValueError: The threshold is not in (0, 1).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be a probability between 0 and 1, got {threshold}; 0.5 is the paper's")
    return math.log(threshold / (1 - threshold))


def ranked_by_prompt(
    candidates: Iterable[Candidate], logits: Mapping[str, float]
) -> dict[str, list[tuple[float, Candidate]]]:
    """Return the judged candidates of each prompt over all rounds, highest logit first; unjudged ones are left out.

    Makes a record of every judged candidate, for objectives that look at whole groups.
    """
    columns = verdict_columns(candidates, logits)
    places = columns.ranked().place_R
    ranked: dict[str, list[tuple[float, Candidate]]] = {}
    for logit, candidate in zip(columns.logit_N[places].tolist(), columns.take(places), strict=True):
        ranked.setdefault(candidate.prompt.id, []).append((logit, candidate))
    return ranked


def accepted_rows(
    candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5, keep: int = 8
) -> Sequence[Candidate]:
    """Return D_SFT of Algorithm 1: of each prompt the ``keep`` accepted candidates with the highest logits.

    Raises:
        ValueError: ``keep`` is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep must be >= 1, got {keep}")
    least = threshold_logit(threshold)
    columns = verdict_columns(candidates, logits)
    ranked = columns.ranked()
    kept = (columns.logit_N[ranked.place_R] >= least) & (_place_in_prompt(ranked) < keep)
    return columns.take(ranked.place_R[kept])


def balanced(rows: Iterable[Candidate], keep: int) -> Sequence[Candidate]:
    """Repeat the rows of every prompt in turn until there are ``keep``, so that each prompt weighs the same."""
    columns = verdict_columns(rows)
    group_N = columns.group_N
    order = np.argsort(_in_order_of_first(group_N), kind="stable")
    starts = np.flatnonzero(np.diff(group_N[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    repeated = np.maximum(counts, keep)
    place = np.arange(repeated.sum()) - np.repeat(np.cumsum(repeated) - repeated, repeated)
    return columns.take(order[np.repeat(starts, repeated) + place % np.repeat(counts, repeated)])


def preference_pairs(
    candidates: Iterable[Candidate],
    logits: Mapping[str, float],
    threshold: float = 0.5,
    per_prompt: int = 1,
    rule: PairRule = "extreme",
) -> Sequence[Pair]:
    """Return Algorithm 1's pairs: the accepted candidate with the highest logit and the rejected one with the lowest.

    Args:
        candidates: The candidates.
        logits: The selecting judge's log-odds of yes, by candidate id.
        threshold: Least probability of yes that accepts a candidate, in (0, 1).
        per_prompt: Pairs of a prompt: the second pair takes the second of each end, and so on, while one is accepted
            and the other rejected.
        rule: ``extreme`` as above; ``closest`` takes the rejected candidate nearest to the threshold.

    Raises:
        ValueError: ``per_prompt`` is below 1.
    """
    if per_prompt < 1:
        raise ValueError(f"per_prompt must be >= 1, got {per_prompt}")
    least = threshold_logit(threshold)
    columns = verdict_columns(candidates, logits)
    ranked = columns.ranked()
    starts = np.flatnonzero(np.diff(ranked.prompt_R, prepend=-1))
    ends = np.append(starts, len(ranked.prompt_R))[1:]
    yes = np.add.reduceat(columns.logit_N[ranked.place_R] >= least, starts, dtype=np.int64) if len(starts) else starts
    pairs = np.minimum(np.minimum(yes, ends - starts - yes), per_prompt)
    place = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    chosen = np.repeat(starts, pairs) + place
    nearest, lowest = np.repeat(starts + yes, pairs) + place, np.repeat(ends, pairs) - 1 - place
    rejected = nearest if rule == "closest" else lowest
    return joined_rows(Pair, columns.take(ranked.place_R[chosen]), columns.take(ranked.place_R[rejected]))


def discarded_prompts(
    prompts: Sequence[Prompt], candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5
) -> list[Prompt]:
    """Return pool B of Algorithm 1: prompts without an accepted candidate in any round.

    Prompts whose candidates are not judged yet are left out.
    """
    least = threshold_logit(threshold)
    columns = verdict_columns(candidates, logits)
    judged_N, count = ~np.isnan(columns.logit_N), columns.group_N.max(initial=-1) + 1
    drawn_G, judged_G, solved_G = np.zeros((3, count), bool)
    drawn_G[columns.group_N] = True
    judged_G[columns.group_N[judged_N]] = True
    solved_G[columns.group_N[columns.logit_N >= least]] = True
    done = {*columns.prompt_ids(np.flatnonzero(solved_G | (drawn_G & ~judged_G)))}
    return [prompt for prompt in prompts if prompt.id not in done]


def acceptance(
    candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5
) -> dict[str, float]:
    """Return the accepted share of each prompt's judged candidates, by prompt id."""
    least = threshold_logit(threshold)
    columns = verdict_columns(candidates, logits)
    judged_N = ~np.isnan(columns.logit_N)
    judged_G = np.bincount(columns.group_N[judged_N])
    accepted_G = np.bincount(columns.group_N[columns.logit_N >= least], minlength=len(judged_G))
    groups = np.flatnonzero(judged_G)
    shares = (accepted_G[groups] / judged_G[groups]).tolist()
    return dict(zip(columns.prompt_ids(groups), shares, strict=True))


def nothing_to_learn(logits: Mapping[str, float], threshold: float) -> str:
    """Say why judged candidates gave no training row, and what to do.

    Args:
        logits: Log-odds of yes of every candidate that was judged, by id.
        threshold: Least probability of yes that counts as accepted.
    """
    if not logits:
        return "this judge has judged none of it; draw a new pool"
    least = threshold_logit(threshold)
    accepted = sum(logit >= least for logit in logits.values())
    if not accepted:
        return "the judge accepted nothing to train on; draw more candidates or lower the threshold"
    if accepted == len(logits):
        return f"the judge accepted all {accepted} candidates, so none is preferred to another; raise the threshold"
    return "no prompt has both an accepted and a rejected candidate; draw more candidates a prompt"


def _place_in_prompt(ranked: Ranked) -> np.ndarray:
    """Return the rank of each candidate in its prompt, from 0."""
    starts = np.flatnonzero(np.diff(ranked.prompt_R, prepend=-1))
    lengths = np.diff(np.append(starts, len(ranked.prompt_R)))
    # half the memory of int64; a process holds fewer than 2^31 candidates
    return np.arange(len(ranked.prompt_R), dtype=np.int32) - np.repeat(starts.astype(np.int32), lengths)


def _in_order_of_first(group_N: np.ndarray) -> np.ndarray:
    """Return groups numbered in the order of their first member."""
    _, first, inverse = np.unique(group_N, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
