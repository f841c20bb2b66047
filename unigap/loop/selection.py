"""Selection of training data from judged candidates: accepted rows, preference pairs, discarded prompts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from unigap.pool import Pool
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
    """Return the judged candidates of each prompt over all rounds, highest logit first; unjudged ones are left out."""
    ranked: dict[str, list[tuple[float, Candidate]]] = {}
    for candidate in candidates:
        if candidate.id in logits:
            ranked.setdefault(candidate.prompt.id, []).append((logits[candidate.id], candidate))
    for row in ranked.values():
        row.sort(key=lambda item: (-item[0], item[1].id))
    return ranked


def accepted_rows(
    candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5, keep: int = 8
) -> list[Candidate]:
    """Return D_SFT of Algorithm 1: of each prompt the ``keep`` accepted candidates with the highest logits.

    Raises:
        ValueError: ``keep`` is below 1.
    """
    if keep < 1:
        raise ValueError(f"keep must be >= 1, got {keep}")
    least = threshold_logit(threshold)
    ranked = ranked_by_prompt(candidates, logits)
    return [candidate for row in ranked.values() for logit, candidate in row[:keep] if logit >= least]


def balanced(rows: Iterable[Candidate], keep: int) -> list[Candidate]:
    """Repeat the rows of every prompt in turn until there are ``keep``, so that each prompt weighs the same."""
    by_prompt: dict[str, list[Candidate]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt.id, []).append(row)
    return [row for own in by_prompt.values() for row in islice(cycle(own), max(keep, len(own)))]


def preference_pairs(
    candidates: Iterable[Candidate],
    logits: Mapping[str, float],
    threshold: float = 0.5,
    per_prompt: int = 1,
    rule: PairRule = "extreme",
) -> list[Pair]:
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
    pairs = []
    for row in ranked_by_prompt(candidates, logits).values():
        yes = [candidate for logit, candidate in row if logit >= least]
        no = [candidate for logit, candidate in (row if rule == "closest" else row[::-1]) if logit < least]
        pairs += [Pair(chosen, rejected) for chosen, rejected in zip(yes[:per_prompt], no, strict=False)]
    return pairs


def discarded_prompts(
    prompts: Sequence[Prompt], candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5
) -> list[Prompt]:
    """Return pool B of Algorithm 1: prompts without an accepted candidate in any round.

    Prompts whose candidates are not judged yet are left out.
    """
    drawn, least = list(candidates), threshold_logit(threshold)
    judged = {candidate.prompt.id for candidate in drawn if candidate.id in logits}
    waiting = {candidate.prompt.id for candidate in drawn} - judged
    solved = {candidate.prompt.id for candidate in drawn if logits.get(candidate.id, -math.inf) >= least}
    return [prompt for prompt in prompts if prompt.id not in solved | waiting]


def acceptance(
    candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5
) -> dict[str, float]:
    """Return the accepted share of each prompt's judged candidates, by prompt id."""
    least = threshold_logit(threshold)
    accepted: dict[str, list[bool]] = {}
    for candidate in candidates:
        if candidate.id in logits:
            accepted.setdefault(candidate.prompt.id, []).append(logits[candidate.id] >= least)
    return {prompt: sum(verdicts) / len(verdicts) for prompt, verdicts in accepted.items()}


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
