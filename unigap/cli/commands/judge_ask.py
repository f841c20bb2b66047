"""``unigap judge ask``: the verdicts of a further judge on the images of a pool, stored next to those of its rounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from unigap.cli.commands.model_choice import ModelChoice
from unigap.console.stop_signal import stopped_at_once
from unigap.judges import Judge
from unigap.loop.sampling import stack_drawings
from unigap.models.base import UnifiedModel
from unigap.pool import Pool
from unigap.records import Candidate

BATCH = 256
"""Images judged between two writes; a killed command keeps all written verdicts."""


def judge_ask(
    pool: str,
    *,
    judge: Judge,
    checkpoint: str | None = None,
    model: UnifiedModel | None = None,
    device: str | None = None,
) -> None:
    """Ask a judge about every image of a pool that it has not judged yet; the same command continues after a kill.

    Args:
        pool: The pool.
        judge: The judge by its class path, e.g. ``unigap.judges.OpenAIJudge``.
        checkpoint: The model that sampled the pool: a shipped model, a folder, a hub id, or a run of ``unigap fit``.
            Default: the model of the run that holds the pool, else ``shapes``.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
    """
    if judge.deferred:
        raise ValueError(f"the verdicts of {judge.name!r} arrive later; export the images and import its sheet instead")
    source = Pool.open(pool)
    if judge.name in {str(stored["name"]) for n in source.rounds for stored in source.recipe(n).get("judges", [])}:
        raise ValueError(f"pool {pool!r} holds verdicts by {judge.name!r} since it was sampled; ask another judge")
    judged = source.logits(judge.name)
    missing = [candidate for candidate in source.candidates() if candidate.id not in judged]
    if missing:
        chosen, _ = ModelChoice(checkpoint, model, device).load_for_pool(pool)
        with stopped_at_once("the same command continues"):
            _ask(chosen, Pool.open(pool, chosen.drawing_digest()), judge, missing)
    print(f"{pool}: {len(judged) + len(missing)} verdicts by {judge.name!r}")


@torch.no_grad()
def _ask(model: UnifiedModel, pool: Pool, judge: Judge, candidates: Sequence[Candidate]) -> None:
    device = next(model.parameters()).device
    with tqdm(total=len(candidates), unit="image", desc="ask") as bar:
        for start in range(0, len(candidates), BATCH):
            batch = candidates[start : start + BATCH]
            logit_B = judge.logits(model, batch, model.decode(stack_drawings(batch).to(device)))
            pool.annotate(judge.name, {c.id: logit for c, logit in zip(batch, logit_B.tolist(), strict=True)})
            bar.update(len(batch))
