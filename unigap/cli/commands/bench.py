"""``unigap bench``: draw images for a published benchmark, measure them, and score."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from unigap.bench import BENCHMARKS, Benchmark
from unigap.bench.folder import PAGE, PICTURES, RESULTS, SCORES, BenchFolder
from unigap.bench.run import IMAGES_PER_BATCH, run_benchmark
from unigap.cli.commands.model_choice import DEFAULT, ModelChoice
from unigap.cli.commands.score_table import print_scores
from unigap.console.closing import close, command
from unigap.console.mistakes import hint
from unigap.console.stop_signal import stopped_at_once
from unigap.instruments import BlipVqa, ClipColors, DepthMap, Detector
from unigap.judges import ClipScoreJudge, Judge, SelfJudge, check_early
from unigap.judges.base import check_immediate
from unigap.loop.plan import RoundPlan
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.pool import Pool
from unigap.prompt_sets.loading import load_prompts


def bench(
    name: str,
    prompts: str,
    n: int = 4,
    out: str = "",
    pool: str = "",
    checkpoint: str | None = None,
    split: str = "validation",
    per_cell: int | None = None,
    cfg: float | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    as_published: bool | None = None,
    *,
    detector: Detector | None = None,
    colors: ClipColors | None = None,
    attributes: BlipVqa | None = None,
    depth: DepthMap | None = None,
    similarity: ClipScoreJudge | None = None,
    vqa: Judge | None = None,
    judge: Judge | None = None,
    model: UnifiedModel | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Draw images for a published benchmark, measure them, and score; the same command continues after a kill.

    Args:
        name: ``geneval``, ``compbench``, ``dsg``, ``dpg``, ``tifa`` or ``wise``.
        prompts: Source of its prompts, e.g. ``geneval:evaluation_metadata.jsonl``.
        n: Images for each prompt.
        out: Folder for pictures, scores, results and a page; empty or new, or that of an unfinished command with the
            same options. Default: ``runs/bench/NAME``.
        pool: A pool that an earlier command drew with the same options, to measure its images with other instruments.
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        split: Split of the prompts, for sets that have splits.
        per_cell: Most prompts of each (category, difficulty), for a quick look. Default: all.
        cfg: Classifier-free guidance scale, >= 1. Default: that of the checkpoint.
        temperature: Sampling temperature, >= 0.
        seed: Sampling seed.
        as_published: For ``dpg``: repeat the faults of the published program, to compare with published figures.
        detector: For ``geneval`` and ``compbench``: the detector by its class path, e.g.
            ``unigap.instruments.BoxDetector``.
        colors: For ``geneval``: the colour classifier.
        attributes: For ``compbench``: BLIP-VQA.
        depth: For ``compbench``: the depth estimator.
        similarity: For ``compbench``: CLIP, as ``unigap.judges.ClipScoreJudge``.
        vqa: For ``dsg``, ``dpg``, ``tifa`` and ``wise``: the judge that answers, e.g. ``unigap.judges.VQAJudge``.
        judge: A judge whose verdicts are kept beside the scores. Default: the model itself.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name[:60]!r}{hint(name, BENCHMARKS)}")
    parts: dict[str, Any] = {"detector": detector, "colors": colors, "attributes": attributes, "depth": depth}
    parts |= {"similarity": similarity, "vqa": vqa, "as_published": as_published}
    plan = RoundPlan(n, SamplingRecipe(temperature, 1.0 if cfg is None else cfg), IMAGES_PER_BATCH, seed)
    folder, beside = BenchFolder(out or f"runs/bench/{name}"), judge or SelfJudge()
    check_immediate(beside)
    if pool:
        Pool.open(pool)  # before loading the model
    benchmark = made(name, parts)
    chosen_prompts = benchmark.wanted(load_prompts(prompts, split, per_cell))
    benchmark.check()
    check_early([beside])
    chosen = ModelChoice(checkpoint, model, device, dtype).load()
    if cfg is None:
        plan = replace(plan, sampling=replace(plan.sampling, cfg=chosen.usual_cfg))
    examined = checkpoint or (DEFAULT if model is None else type(model).__name__)
    facts = {"checkpoint": examined, "prompt set": prompts + (f", {per_cell} of each cell" if per_cell else "")}
    with stopped_at_once("the same command continues"):
        scored = run_benchmark(chosen, benchmark, chosen_prompts, beside, plan, folder, facts, pool)
    print(f"{benchmark.title}: {plan.candidates * len(chosen_prompts)} images for {len(chosen_prompts)} prompts")
    print_scores(scored.figures)
    place = folder.folder
    made_files = {"page": PAGE, "scores": SCORES, "results": RESULTS, "pictures": PICTURES}
    other = command("bench", name, prompts, "--checkpoint", "OTHER", "--out", "FOLDER")
    then = command("judge", "agreement", pool or folder.pool) if benchmark.is_verdict else other
    close({what: place / file for what, file in made_files.items()}, then)


def made(name: str, parts: dict[str, Any]) -> Benchmark:
    """Make a benchmark of the options that were given.

    Raises:
        ValueError: An option is not one of the benchmark's, or one that it needs is missing.
    """
    known = inspect.signature(BENCHMARKS[name]).parameters
    given = {option: value for option, value in parts.items() if value is not None}
    for option in given:
        if option not in known:
            raise ValueError(f"benchmark {name!r} has no use for --{option}; leave it out")
    if "vqa" in known and "vqa" not in given:
        raise ValueError(f"benchmark {name!r} asks a judge; name it, e.g. --vqa unigap.judges.VQAJudge")
    return BENCHMARKS[name](**given)
