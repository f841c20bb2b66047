"""``unigap gap``: the gap of a checkpoint in one table."""

from __future__ import annotations

from dataclasses import replace

from unigap.cli.commands.model_choice import DEFAULT, ModelChoice
from unigap.console.closing import close, command
from unigap.evaluation.gap import Verdicts, gap_by, gap_scores, measure, probe_logits, probe_scores
from unigap.evaluation.probe_sources import ProbeSource
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
    plan = RoundPlan(candidates, SamplingRecipe(temperature, 1.0 if cfg is None else cfg), seed=seed)
    world, prompt_list = find_world(prompts), load_prompts(prompts, split, per_cell)
    if external is not None:
        check_immediate(external)
        warn_of_own_external(SelfJudge(), external)
        check_early([external])
    elif world:
        external = world.external()
    chosen = ModelChoice(checkpoint, model, device, dtype).load()
    if cfg is None:
        plan = replace(plan, sampling=replace(plan.sampling, cfg=chosen.usual_cfg))
    figures = _figures(measure(chosen, prompt_list, plan, SelfJudge(), external, title=_title(chosen)))
    if world:
        figures |= _probe_figures(chosen, world.probe_source(split, seed))
    if out:  # before printing, so that a closed pipe loses nothing
        write_figures(out, {n: {group: e.to_dict() for group, e in found.items()} for n, found in figures.items()})
    print_gap(figures, "--external")
    examined = checkpoint or (DEFAULT if model is None else "FOLDER")
    pairs = () if world else ("--captions", "CAPTIONS.jsonl")
    close({"figures": out} if out else {}, command("calibrate", "--checkpoint", examined, *pairs))


def _title(model: UnifiedModel) -> str:
    """Return the title of the progress bar, with the device and precision of the model."""
    weight = next(model.trunk.parameters())
    return f"gap on {weight.device} in {str(weight.dtype).removeprefix('torch.')}"


def _probe_figures(model: UnifiedModel, source: ProbeSource) -> dict[str, dict[str, Estimate]]:
    """Return how well the model's own judge does on the probe set of a world."""
    probe_set = source.load(PROBE_IMAGES)
    scored = probe_scores(probe_set, probe_logits(model, probe_set, SelfJudge()))
    return {name: {"all": value} for name, value in scored.items()}


def _figures(verdicts: Verdicts) -> dict[str, dict[str, Estimate]]:
    """Return estimates by name, then by group: ``"all"``, each category and each difficulty."""
    figures = {name: {"all": value} for name, value in gap_scores(verdicts).items()}
    for attribute in ("category", "difficulty"):
        for group, found in gap_by(verdicts, attribute).items():
            for name, estimate in found.items():
                figures[name][group] = estimate
    return figures
