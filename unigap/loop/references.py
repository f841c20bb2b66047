"""Log-likelihoods of stored candidates under the reference model, for objectives that need them (DPO)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from unigap.console import tasks
from unigap.loop.members import stage_members
from unigap.loop.ranks import Ranks
from unigap.loop.sampling import stack_drawings
from unigap.models.base import UnifiedModel, evaluating
from unigap.models.engine.memory import in_fitting_batches
from unigap.models.engine.sharding import whole
from unigap.pool import Pool
from unigap.pool.candidates import Candidates, Numbers
from unigap.records import Candidate

BATCH = 256
"""Candidates in one forward pass of the reference."""


def stored_references(
    pool: Pool,
    key: str,
    candidates: Sequence[Candidate],
    model: UnifiedModel,
    state: dict[str, torch.Tensor],
    precision: AbstractContextManager[None],
    ranks: Ranks,
) -> Mapping[str, float]:
    """Return reference log-likelihoods by candidate id, in nats; those that the pool lacks are computed and stored.

    Args:
        pool: The pool.
        key: Name of the reference model in the pool.
        candidates: The distinct candidates that training rows hold.
        model: The model.
        state: Its trainable weights as the reference has them.
        precision: The trainer's forward context.
        ranks: The processes that share the work.
    """
    known = pool.references(key)
    missing = _without(candidates, known)
    if not missing:
        return known
    with ranks.together(), model.with_state(state), precision, whole(model):
        found = image_likelihoods(model, _share(missing, ranks), BATCH)
    shares = map(json.loads, ranks.gather(json.dumps(found)))
    fresh = {name: logp for share in shares for name, logp in share.items()}
    with ranks.together():
        if ranks.rank == 0:
            pool.add_references(key, fresh)
    # not read again: a shared folder may show the new file late
    return known.with_numbers(fresh)


def _without(candidates: Sequence[Candidate], known: Numbers) -> Sequence[Candidate]:
    """Return the candidates that have no reference yet."""
    if isinstance(candidates, Candidates):
        return candidates.take(np.flatnonzero(np.isnan(known.value_N[candidates.rows])))
    return [candidate for candidate in candidates if candidate.id not in known]


def _share(candidates: Sequence[Candidate], ranks: Ranks) -> Sequence[Candidate]:
    """This rank's share in whole batches, so that the tensors of a pass do not depend on the number of ranks."""
    batches = range(0, len(candidates), BATCH)
    mine = np.array([place for start in ranks.share(batches) for place in range(start, start + BATCH)], np.int64)
    mine = mine[mine < len(candidates)]
    stage_members(candidates, mine, lambda candidate: (candidate,))
    return candidates.take(mine) if isinstance(candidates, Candidates) else [candidates[i] for i in mine.tolist()]


@torch.no_grad()
def image_likelihoods(
    model: UnifiedModel, candidates: Sequence[Candidate], batch_size: int = BATCH
) -> dict[str, float]:
    """Return the teacher-forced log-likelihood of each candidate, summed over its tokens, in nats, by candidate id.

    Raises:
        ValueError: Memory runs out for a single candidate.
    """
    found: dict[str, float] = {}

    def likelihoods(batch: slice) -> dict[str, float]:
        rows = candidates[batch]
        prompt = model.encode_prompt([candidate.prompt.text for candidate in rows])
        logp_B = model.image_logps(prompt, stack_drawings(rows).to(prompt.ids_BL.device)).double().sum(-1)
        return dict(zip([candidate.id for candidate in rows], logp_B.tolist(), strict=True))

    too_large = "the likelihood of one image does not fit; free memory on the device"
    with evaluating(model), tasks.task("references", "reference likelihoods", len(candidates), "image") as task:
        for batch in in_fitting_batches(likelihoods, len(candidates), batch_size, too_large):
            found |= batch
            task.advance(len(batch))
    return found
