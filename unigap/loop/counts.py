"""How a round went, in counts for the log and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unigap.loop.selection import Selection, discarded_prompts, threshold_logit
from unigap.pool import Pool
from unigap.records import Candidate, Prompt

Counts = dict[str, int]
Rows = Callable[[Sequence[Candidate], Mapping[str, float]], Sequence[Any]]


def count_round(
    pool: Pool, selection: Selection, external: Mapping[str, float], prompts: Sequence[Prompt], rows: Rows, number: int
) -> Counts:
    """Count what a round added.

    Args:
        pool: The pool.
        selection: The selecting judge's verdicts on all rounds.
        external: The external judge's log-odds of yes, by candidate id; empty without one.
        prompts: All training prompts.
        rows: Makes training rows of candidates and logits, as the objective does.
        number: Number of the round.

    Returns:
        ``prompts`` and ``candidates`` of the round; ``judged`` and ``accepted`` candidates, where people may have
        judged only some; ``discarded`` prompts and ``pool_rows``, training rows, after the round. Where the external
        judge knows all candidates of the round, also ``right``, those it accepts, and ``truly_right``, those that both
        judges accept.
    """
    least = threshold_logit(selection.threshold)
    so_far = [candidate for candidate in selection.candidates if candidate.round <= number]
    logits = {c.id: selection.logits[c.id] for c in so_far if c.id in selection.logits}
    drawn = [candidate.id for candidate in so_far if candidate.round == number]
    judged = [name for name in drawn if name in logits]
    accepted = [name for name in judged if logits[name] >= least]
    counts = {
        "round": number,
        "prompts": len(pool.prompts(upto=number)[number]),
        "candidates": len(drawn),
        "judged": len(judged),
        "accepted": len(accepted),
        "discarded": len(discarded_prompts(prompts, so_far, logits, selection.threshold)),
        "pool_rows": len(rows(so_far, logits)),
    }
    if drawn and external.keys() >= {*drawn}:
        counts["right"] = sum(external[name] > 0 for name in drawn)
        counts["truly_right"] = sum(external[name] > 0 for name in accepted)
    return counts
