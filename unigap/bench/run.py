"""Run a benchmark: draw into a pool, measure each image, score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unigap.bench.base import Benchmark, device_of
from unigap.bench.folder import BenchFolder
from unigap.console import tasks
from unigap.evaluation.scoring.benchmarks import RULES, Scored
from unigap.files.images import to_png
from unigap.judges import Judge
from unigap.judges.base import CERTAIN
from unigap.loop.plan import RoundPlan
from unigap.loop.round import run_round
from unigap.loop.sampling import stack_drawings
from unigap.models.base import UnifiedModel
from unigap.pool import Pool
from unigap.records import Candidate, Prompt

IMAGES_PER_BATCH = 64
"""Images drawn between two writes, so that a killed command loses little."""
MEASURED_AT_ONCE = 8
"""Images measured between two writes."""


def run_benchmark(
    model: UnifiedModel,
    benchmark: Benchmark,
    prompts: Sequence[Prompt],
    judge: Judge,
    plan: RoundPlan,
    folder: BenchFolder,
    facts: Mapping[str, Any],
    drawn: str = "",
) -> Scored:
    """Draw images for the prompts, measure each, and write scores, results and a page.

    Drawings are kept in the folder's pool, so a killed command draws none again; answers are stored as they arrive.

    Args:
        model: The model, in eval mode.
        benchmark: What to measure.
        prompts: The prompts, all of which it can score.
        judge: A judge whose verdicts the pool keeps beside the scores, by default the model itself.
        plan: How images are drawn.
        folder: Where the results go.
        facts: What the page says of the checkpoint and the prompts, by name.
        drawn: A pool that an earlier command drew in the same way; empty draws into the folder's own.

    Returns:
        The scores.

    Raises:
        ValueError: The folder holds results of another recipe.
    """
    folder.begin(_recipe(model, benchmark, prompts, judge, plan))
    if not drawn and not folder.pool.exists():
        Pool.create(folder.pool, model.drawing_digest(), model.drawing_format)
    pool = Pool.open(drawn or folder.pool, model.drawing_digest())
    run_round(model, prompts, [judge], pool, 0, plan)
    candidates = list(pool.candidates(upto=0))
    _measure(model, benchmark, candidates, folder)
    answers = folder.answers(candidates)
    images = RULES[benchmark.rule](answers, prompts).images
    scored = RULES[benchmark.scored_by](answers, prompts)
    verdicts = {judgment.candidate_id: judgment.p_yes for judgment in pool.judgments(judge.name)}
    p_yes = [verdicts[candidate.id] for candidate in candidates]
    stated = {**facts, "prompts": len(prompts), **_stated(benchmark, judge, plan)}
    folder.finish(benchmark, candidates, [image.value for image in images], p_yes, scored, stated)
    if benchmark.is_verdict:
        right = zip(candidates, images, strict=True)
        pool.annotate(benchmark.name, {candidate.id: CERTAIN * (2 * score.value - 1) for candidate, score in right})
    return scored


@torch.no_grad()
def _measure(model: UnifiedModel, benchmark: Benchmark, candidates: Sequence[Candidate], folder: BenchFolder) -> None:
    missing = [candidate for candidate in candidates if not folder.is_measured(candidate)]
    with tasks.task("measuring", f"measuring {benchmark.title}", len(missing), "image") as progress:
        for start in range(0, len(missing), MEASURED_AT_ONCE):
            batch = missing[start : start + MEASURED_AT_ONCE]
            pixels_BCHW = model.decode(stack_drawings(batch).to(device_of(model)))
            answers = benchmark.answer(model, batch, pixels_BCHW)
            for candidate, pixels_CHW, answer in zip(batch, pixels_BCHW, answers, strict=True):
                folder.add(candidate, to_png(pixels_CHW), answer)
            progress.advance(len(batch))


def _stated(benchmark: Benchmark, judge: Judge, plan: RoundPlan) -> dict[str, Any]:
    """Return what the page says of how images were drawn and measured."""
    sampling = dataclasses.asdict(plan.sampling)
    return {
        "images for each prompt": plan.candidates,
        "sampling": ", ".join(f"{name} {value:g}" for name, value in sampling.items()),
        "seed": plan.sampling_seed,
        "measured by": json.dumps(benchmark.recipe),
        "judge of the pool": judge.name,
    }


def _recipe(
    model: UnifiedModel, benchmark: Benchmark, prompts: Sequence[Prompt], judge: Judge, plan: RoundPlan
) -> dict[str, Any]:
    told = json.dumps([dataclasses.astuple(prompt) for prompt in prompts]).encode()
    return plan.recipe(model, [judge]) | {
        "benchmark": benchmark.recipe,
        "prompts": hashlib.sha256(told).hexdigest(),
    }
