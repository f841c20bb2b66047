"""``unigap gap``: the gap of a checkpoint in one table."""

from __future__ import annotations

from dataclasses import replace

from unigap.cli.commands.model_choice import DEFAULT, ModelChoice
from unigap.console.closing import close, command
from unigap.evaluation.gap import Verdicts, gap_by, gap_scores, measure, probe_logits, probe_scores
from unigap.files.outputs import check_figures, write_figures
from unigap.judges import Judge, SelfJudge, check_early, check_immediate
from unigap.judges.own_external import warn_of_own_external
from unigap.loop.plan import RoundPlan
from unigap.metrics.intervals import Estimate
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.prompt_sets.loading import load_prompts
from unigap.report.gap_table import print_gap
from unigap.world import find_world

PROBE_IMAGES = 600


def gap(
    checkpoint: str | None = None,
    prompts: str = "shapes",
    split: str = "test",
    per_cell: int = 20,
    candidates: int = 4,
    cfg: float | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    out: str = "",
    *,
    external: Judge | None = None,
    model: UnifiedModel | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Measure the gap of a checkpoint: how often its own judge rejects its images, and how often the judge is right.

    Args:
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        prompts: ``shapes``, a published set as ``NAME:PATH``, or a ``.txt`` or ``.jsonl`` file.
        split: Split of the prompts.
        per_cell: Maximum number of prompts of each (category, difficulty).
        candidates: Images sampled for each prompt.
        cfg: Classifier-free guidance scale, >= 1. Default: that of the checkpoint.
        temperature: Sampling temperature, >= 0.
        seed: Sampling seed.
        out: JSON file for the figures. Default: write none.
        external: The external judge by its class path, e.g. ``unigap.judges.VQAJudge``. Default: the oracle for
            ``shapes``, and none for other prompts.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    if out:
        check_figures(out)
    # refuse values out of range before loading the weights
    sampling = SamplingRecipe(temperature, 1.0 if cfg is None else cfg)
    plan = RoundPlan(candidates, sampling, seed=seed)
    world, prompt_list = find_world(prompts), load_prompts(prompts, split, per_cell)
    if external is not None:
        check_immediate(external)
        warn_of_own_external(SelfJudge(), external)
        check_early([external])
    chosen = ModelChoice(checkpoint, model, device, dtype).load()
    if cfg is None:
        plan = replace(plan, sampling=replace(sampling, cfg=chosen.usual_cfg))
    where = next(chosen.trunk.parameters())
    verdicts = measure(
        chosen,
        prompt_list,
        plan,
        SelfJudge(),
        external or (world.external() if world else None),
        title=f"gap on {where.device} in {str(where.dtype).removeprefix('torch.')}",
    )
    figures = _figures(verdicts)
    if world:
        probe_set = world.probe_source(split, seed).load(PROBE_IMAGES)
        scored = probe_scores(probe_set, probe_logits(chosen, probe_set, SelfJudge()))
        figures |= {name: {"all": value} for name, value in scored.items()}
    if out:  # before printing, so that a closed pipe loses nothing
        write_figures(out, {n: {group: e.to_dict() for group, e in found.items()} for n, found in figures.items()})
    print_gap(figures, "--external")
    examined = checkpoint or (DEFAULT if model is None else "FOLDER")
    pairs = () if world else ("--captions", "CAPTIONS.jsonl")
    close({"figures": out} if out else {}, command("calibrate", "--checkpoint", examined, *pairs))


def _figures(verdicts: Verdicts) -> dict[str, dict[str, Estimate]]:
    """Return estimates by name, then by group: ``"all"``, each category and each difficulty."""
    figures = {name: {"all": value} for name, value in gap_scores(verdicts).items()}
    for attribute in ("category", "difficulty"):
        for group, found in gap_by(verdicts, attribute).items():
            for name, estimate in found.items():
                figures[name][group] = estimate
    return figures
