"""The self-improvement loop on one screen: sample, judge, store, select.

`run_round` is one turn of the loop. `unigap.callbacks.Regrow` says when it runs; `unigap.loop.references` and
`unigap.loop.counts` compute what DPO and the logs need of a finished round.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from unigap.console import tasks
from unigap.judges import Judge, immediate
from unigap.loop.allocation import Allocation, FixedCandidates, Tally, Wave
from unigap.loop.judging import judge_samples
from unigap.loop.plan import SELECTS, RoundPlan
from unigap.loop.ranks import Ranks
from unigap.loop.sampling import SampledBatch, sample_candidates
from unigap.loop.selection import Selection, select, threshold_logit
from unigap.models.base import UnifiedModel
from unigap.models.engine.memory import BatchLimit
from unigap.pool import Pool
from unigap.pool.layout import BEHAVIOUR_KEY
from unigap.records import Judgment, Prompt


def run_round(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    judges: Sequence[Judge],
    pool: Pool,
    round: int,
    plan: RoundPlan,
    ranks: Ranks | None = None,
    progress: Callable[[int], None] = lambda images: None,
    allocation: Allocation | None = None,
    threshold: float = 0.5,
    learning: Mapping[str, Any] | None = None,
) -> Selection:
    """Sample candidates for ``prompts``, judge them, commit them to ``pool`` as ``round``, and select.

    A round that the pool holds already is only selected from. A killed round continues from its stored shards. Every
    rank takes each world-th batch; neither ranks nor kills change a bit of the result.

    Args:
        model: The model that samples, and that a self-judge asks.
        prompts: Prompts to sample for.
        judges: The selecting judge first, then those whose verdicts are stored for evaluation. A judge that answers
            later is skipped here.
        pool: The pool, open for writing.
        round: Number of the round.
        plan: How it is drawn.
        ranks: The processes that share the work; ``None`` is this process alone.
        progress: Called with the number of images sampled and judged since the last call.
        allocation: How the images are shared out between prompts; ``None`` gives each prompt the plan's number.
        threshold: Least probability of yes that accepts a candidate.
        learning: What the objective adds to the round's recipe; with the key ``behaviour``, the pool keeps the
            log-probability of each token under the sampling recipe.

    Returns:
        The judged candidates of all rounds so far.

    Raises:
        ValueError: The pool holds the round with other weights, another recipe or other prompts; the allocation needs
            verdicts of a judge that answers later; or a rank failed, on every rank.
    """
    ranks, allocation, present = ranks or Ranks(), allocation or FixedCandidates(), immediate(judges)
    _check_allocation(allocation, judges[0])
    recipe = plan.recipe(model, judges) | allocation.recipe(threshold) | dict(learning or {})
    if round in pool.rounds:
        _check_same_round(pool, round, recipe, prompts)
        return _select_together(ranks, pool, judges[0], threshold, round)
    tallies = [Tally()] * len(prompts)
    wave = allocation.next_wave(tallies, plan.candidates)
    with ranks.together():
        writer = pool.writer(round, recipe, lead=ranks.rank == 0)
        logits = writer.verdicts(present[0].name)  # of candidates that a killed process has stored
    while wave:
        mine = ranks.share(wave.batches(plan.images_per_batch))
        todo = [[prompts[i] for i in batch if (prompts[i].id, wave.first) not in logits] for batch in mine]
        images, title = wave.images * sum(map(len, todo)), ranks.share_of(f"round {round}")
        with ranks.together(), tasks.task("storing", title, images, "image", tasks.IMAGE_PARTS):
            for sampled in _sample_wave(model, todo, wave, round, plan, BEHAVIOUR_KEY in recipe):  # sample
                judgments = judge_samples(model, sampled, present)  # judge
                writer.write(sampled.candidates, judgments, ranks.rank)  # store
                logits |= _logits_of(present[0], sampled, judgments)
                progress(len(sampled.candidates))
        judged = [(i, [logits[prompts[i].id, index] for index in wave.indices]) for batch in mine for i in batch]
        tallies = _add_to_tallies(tallies, judged, threshold, ranks)
        wave = allocation.next_wave(tallies, plan.candidates)
    with ranks.together():
        if ranks.rank == 0:
            with tasks.task("storing", f"storing round {round}"):
                writer.commit(prompts)
    return _select_together(ranks, pool, judges[0], threshold, round)  # select


def _sample_wave(
    model: UnifiedModel,
    batches: Iterable[Sequence[Prompt]],
    wave: Wave,
    round: int,
    plan: RoundPlan,
    behaviour: bool,
) -> Iterator[SampledBatch]:
    """Sample the candidates of a wave for the prompts of each batch."""
    how = (plan.sampling_seed, plan.sampling, plan.images_per_batch)
    limit = BatchLimit()
    for prompts in batches:
        yield from sample_candidates(model, prompts, wave.images, round, *how, wave.first, behaviour, limit)


def _logits_of(judge: Judge, sampled: SampledBatch, judgments: Iterable[Judgment]) -> dict[tuple[str, int], float]:
    """Return the logits of one judge, by prompt and index of the candidate."""
    keys = {candidate.id: (candidate.prompt.id, candidate.index) for candidate in sampled.candidates}
    return {keys[judgment.candidate_id]: judgment.logit for judgment in judgments if judgment.judge == judge.name}


def _select_together(ranks: Ranks, pool: Pool, judge: Judge, threshold: float, round: int) -> Selection:
    """Select on every rank; a file that one rank cannot read stops all of them."""
    with ranks.together():
        return select(pool, judge.name, threshold, round)


def _add_to_tallies(
    tallies: Sequence[Tally], judged: Sequence[tuple[int, list[float]]], threshold: float, ranks: Ranks
) -> list[Tally]:
    """Add a wave's verdicts of all ranks. They are gathered, since a shared folder may show new shards late."""
    after = list(tallies)
    for place, logits in itertools.chain.from_iterable(map(json.loads, ranks.gather(json.dumps(judged)))):
        after[place] = after[place].after(logits, threshold_logit(threshold))
    return after


def _check_allocation(allocation: Allocation, judge: Judge) -> None:
    if judge.deferred and not isinstance(allocation, FixedCandidates):
        raise ValueError(
            f"{type(allocation).__name__} asks the judge while it draws, and {judge.name!r} answers later; "
            "leave the allocation out"
        )


def _check_same_round(pool: Pool, round: int, recipe: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
    """Make sure that a round in the pool is the one that would be drawn."""
    stored = pool.recipe(round)
    # rounds drawn before the key was recorded lack it
    if stored != {name: value for name, value in recipe.items() if name != SELECTS or name in stored}:
        raise ValueError(
            f"pool {pool.folder}: round {round} was drawn by other weights or another recipe; use a new pool folder"
        )
    if pool.prompts_of(round) != list(prompts):
        raise ValueError(
            f"pool {pool.folder}: round {round} was drawn for other prompts; use them or a new pool folder"
        )
