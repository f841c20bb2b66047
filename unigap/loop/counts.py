"""How a round went, in counts for the log and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unigap.loop.selection import Selection, threshold_logit
from unigap.loop.verdict_columns import verdict_columns
from unigap.pool import Pool
from unigap.records import Prompt

Counts = dict[str, int]


def count_round(
    pool: Pool, selection: Selection, external: Mapping[str, float], prompts: Sequence[Prompt], rows: int, number: int
) -> Counts:
    """Count what a round added.

    Args:
        pool: The pool.
        selection: The selecting judge's verdicts on the rounds up to this one.
        external: The external judge's log-odds of yes, by candidate id; empty without one.
        prompts: All training prompts.
        rows: Training rows after the round.
        number: Number of the round.

    Returns:
        ``prompts`` and ``candidates`` of the round; ``judged`` and ``accepted`` candidates, where people may have
        judged only some; ``discarded`` prompts, of those drawn so far, and ``pool_rows``, training rows, after the
        round. Where the external judge knows all candidates of the round, also ``right``, those it accepts, and
        ``truly_right``, those that both judges accept.
    """
    columns = verdict_columns(selection.candidates, selection.logits)
    drawn = columns.of_round(number)
    own_N = columns.logit_N[drawn]
    so_far = {*columns.prompt_ids(np.unique(columns.group_N))}
    accepted_N = own_N >= threshold_logit(selection.threshold)
    counts = {
        "round": number,
        "prompts": len(pool.prompts_of(number)),
        "candidates": len(own_N),
        "judged": int(np.count_nonzero(~np.isnan(own_N))),
        "accepted": int(np.count_nonzero(accepted_N)),
        "discarded": len(selection.discarded([prompt for prompt in prompts if prompt.id in so_far])),
        "pool_rows": rows,
    }
    true_N = verdict_columns(selection.candidates, external).logit_N[drawn]
    if len(true_N) and not np.isnan(true_N).any():
        counts["right"] = int(np.count_nonzero(true_N > 0))
        counts["truly_right"] = int(np.count_nonzero((true_N > 0) & accepted_N))
    return counts
