"""What is learned from judged candidates: accepted rows, preference pairs, and the prompts nothing was accepted for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import Literal

from unigap.records import Candidate, Pair, Prompt

PairRule = Literal["extreme", "closest"]
"""Which rejected candidate an accepted one is set against."""


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
    """Judged candidates of each prompt over all rounds, the surest first; unjudged ones are left out."""
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
    """D_SFT of Algorithm 1: candidates the judge says yes to, the surest ``keep`` of each prompt."""
    if keep < 1:
        raise ValueError(f"keep must be >= 1, got {keep}")
    bar = threshold_logit(threshold)
    ranked = ranked_by_prompt(candidates, logits)
    return [candidate for row in ranked.values() for logit, candidate in row[:keep] if logit >= bar]


def balanced(rows: Iterable[Candidate], keep: int) -> list[Candidate]:
    """The rows of every prompt repeated in turn until there are ``keep``, so that each prompt weighs the same."""
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
    """Algorithm 1's pairs: the most positive-looking accepted against the most negative-looking rejected candidate.

    The rule ``closest`` takes the rejected candidate nearest to the threshold instead, a harder lesson. With
    ``per_prompt`` above 1, also the second of each end, and so on, as long as one is accepted and the other not.
    """
    if per_prompt < 1:
        raise ValueError(f"per_prompt must be >= 1, got {per_prompt}")
    bar = threshold_logit(threshold)
    pairs = []
    for row in ranked_by_prompt(candidates, logits).values():
        yes = [candidate for logit, candidate in row if logit >= bar]
        no = [candidate for logit, candidate in (row if rule == "closest" else row[::-1]) if logit < bar]
        pairs += [Pair(chosen, rejected) for chosen, rejected in zip(yes[:per_prompt], no, strict=False)]
    return pairs


def discarded_prompts(
    prompts: Sequence[Prompt], candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5
) -> list[Prompt]:
    """Pool B of Algorithm 1: prompts none of whose candidates was accepted, in any round.

    Those whose candidates nobody has judged yet are not among them.
    """
    every, bar = list(candidates), threshold_logit(threshold)
    judged = {candidate.prompt.id for candidate in every if candidate.id in logits}
    waiting = {candidate.prompt.id for candidate in every} - judged
    solved = {candidate.prompt.id for candidate in every if logits.get(candidate.id, -math.inf) >= bar}
    return [prompt for prompt in prompts if prompt.id not in solved | waiting]


def acceptance(
    candidates: Iterable[Candidate], logits: Mapping[str, float], threshold: float = 0.5
) -> dict[str, float]:
    """How easy each prompt is for the model in its own judgment: the accepted share of its candidates, by prompt id."""
    bar = threshold_logit(threshold)
    said: dict[str, list[bool]] = {}
    for candidate in candidates:
        if candidate.id in logits:
            said.setdefault(candidate.prompt.id, []).append(logits[candidate.id] >= bar)
    return {prompt: sum(accepted) / len(accepted) for prompt, accepted in said.items()}


def nothing_to_learn(logits: Mapping[str, float], threshold: float) -> str:
    """Why judged candidates gave no training row, and what to do about it.

    Args:
        logits: Log-odds of yes of every candidate that was judged, by id.
        threshold: Least probability of yes that counts as accepted.
    """
    if not logits:
        return "this judge has said nothing of it; draw a new pool"
    bar = threshold_logit(threshold)
    accepted = sum(logit >= bar for logit in logits.values())
    if not accepted:
        return "the judge accepted nothing to train on; draw more candidates or lower the threshold"
    if accepted == len(logits):
        return f"the judge accepted all {accepted} candidates, so none is preferred to another; raise the threshold"
    return "no prompt has both an accepted and a rejected candidate; draw more candidates a prompt"
