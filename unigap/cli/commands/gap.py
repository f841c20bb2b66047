"""``unigap gap``: the gap of a checkpoint in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from unigap.cli.commands.model_choice import ModelChoice
from unigap.evaluation.gap import Verdicts, gap_by, gap_scores, measure, probe_logits, probe_scores
from unigap.files.outputs import check_figures, write_figures
from unigap.judges import Judge, SelfJudge, check_speaks_at_once
from unigap.judges.own_external import warn_of_own_external
from unigap.loop.plan import RoundPlan
from unigap.metrics.intervals import Estimate
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Prompt
from unigap.report.gap_table import print_gap
from unigap.world import find_world

EXAM_PICTURES = 600


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
    """Measure the gap of a checkpoint: how often its own judge rejects what it draws, and who is right.

    Args:
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        prompts: ``shapes``, a published set as ``NAME:PATH``, or a ``.txt`` or ``.jsonl`` file.
        split: Split of the prompts.
        per_cell: At most this many prompts for each (category, difficulty).
        candidates: Images drawn for each prompt.
        cfg: Classifier-free guidance scale, >= 1; that of the checkpoint where left out.
        temperature: Sampling temperature, >= 0.
        seed: Seed of the drawings.
        out: JSON file for the figures.
        external: The external judge by its class path, e.g. ``unigap.judges.VQAJudge``; where left out, the one that
            knows the truth of ``shapes``, and none for other prompts.
        model: A model of your own by its class path, in place of ``checkpoint``.
        device: Where it runs, e.g. ``cuda:1``; the GPU where there is one, else the CPU, where left out.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    if out:
        check_figures(out)
    # before the weights are loaded: what is out of range is told at once
    sampling = SamplingRecipe(temperature, 1.0 if cfg is None else cfg)
    plan = RoundPlan(candidates, sampling, seed=seed)
    world, asked = find_world(prompts), load_prompts(prompts, split, per_cell)
    if external is not None:
        check_speaks_at_once(external)
        warn_of_own_external(SelfJudge(), external)
    chosen = ModelChoice(checkpoint, model, device, dtype).load()
    if cfg is None:
        plan = replace(plan, sampling=replace(sampling, cfg=chosen.usual_cfg))
    verdicts = _draw_and_judge(chosen, asked, plan, external or (world.external() if world else None))
    figures = _figures(verdicts)
    if world:
        exam = world.probe_source(split, seed).load(EXAM_PICTURES)
        scored = probe_scores(exam, probe_logits(chosen, exam, SelfJudge()))
        figures |= {name: {"all": value} for name, value in scored.items()}
    if out:  # before they are printed, so that a closed pipe loses nothing
        write_figures(out, {n: {group: e.to_dict() for group, e in found.items()} for n, found in figures.items()})
    print_gap(figures, "--external")


def _draw_and_judge(
    model: UnifiedModel, prompts: Sequence[Prompt], plan: RoundPlan, external: Judge | None
) -> Verdicts:
    with tqdm(total=len(prompts) * plan.candidates, unit="image", desc="gap") as bar:
        return measure(model, prompts, plan, SelfJudge(), external, bar.update)


def _figures(verdicts: Verdicts) -> dict[str, dict[str, Estimate]]:
    """Every figure by name, then for all drawings and for each category and difficulty."""
    figures = {name: {"all": value} for name, value in gap_scores(verdicts).items()}
    for attribute in ("category", "difficulty"):
        for group, found in gap_by(verdicts, attribute).items():
            for name, estimate in found.items():
                figures[name][group] = estimate
    return figures
