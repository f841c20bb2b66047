"""The control of a demo: as many steps on pretraining data, so that a gain of self-improvement is no mere recall."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer

from unigap.callbacks.run_progress import RunProgress
from unigap.cli.commands.model_choice import ModelChoice
from unigap.console.quiet import quiet_libraries
from unigap.estimate import Estimate
from unigap.evaluation.gap import drawing_counts, measure, paired_share
from unigap.files.typed_json import build
from unigap.judges import SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.models.base import SamplingRecipe, UnifiedModel, evaluating
from unigap.prompt_sets.loading import load_prompts
from unigap.report.run_folder.contents import Summary
from unigap.report.run_folder.figures import FIGURES
from unigap.report.run_folder.findings import headline
from unigap.world import World, find_world


@quiet_libraries()
def recall_control(model: UnifiedModel, summary: Summary, seed: int) -> dict[str, Any]:
    """Train a model for the steps of a run, but on new batches of pretraining data, and measure it on the same images.

    Args:
        model: The model that the run started from; its shared LLM is trained in place.
        summary: The summary of the run.
        seed: Seed of the run.

    Returns:
        ``steps``, and ``generation``, the paired change of generation accuracy (``Estimate.to_dict()``).
    """
    world = find_world(summary.measured_on["prompts"])
    assert world is not None, "a demo samples for the prompts of a world"
    # pretraining has seed 0
    stage, lessons = world.pretraining(model, summary.recipe["model.lr"], summary.steps, seed + 1)
    trainer = Trainer(
        max_epochs=1,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[RunProgress()],
    )
    trainer.fit(stage, datamodule=lessons)
    change = _change_of_generation(ModelChoice().place(stage.model), summary, world)
    return {"steps": summary.steps, "generation": change.to_dict()}


def in_words(control: dict[str, Any]) -> str:
    """Return the result of the control as a sentence."""
    said = headline(FIGURES["generation"], build(Estimate, control["generation"], "generation"))
    return f"Control, {control['steps']} steps on pretraining data instead: {said.sentence} ({said.detail})."


@torch.no_grad()
def _change_of_generation(model: UnifiedModel, summary: Summary, world: World) -> Estimate:
    """Return the paired change of generation accuracy against the model before the run."""
    on, samples = summary.measured_on, summary.samples
    assert samples is not None and samples.fixed_right is not None
    prompts = load_prompts(on["prompts"], on["split"], on["per_cell"])
    plan = RoundPlan(on["candidates"], build(SamplingRecipe, on["sampling"], "sampling"), seed=on["seed"])
    with evaluating(model):
        after = measure(model, prompts, plan, SelfJudge(), world.external(), title="control")
    right_S, yes_S = torch.tensor(samples.fixed_right), torch.ones(len(samples.fixed_right), dtype=torch.bool)
    first, last = (drawing_counts(yes_S, found_S)["generation"] for found_S in (right_S, after.truth_S))
    return paired_share(first, after.prompt_S, last, after.prompt_S)
