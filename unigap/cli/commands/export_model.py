"""``unigap export model``: a trained checkpoint or adapter for the Hugging Face hub, with its card and recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.cli.commands.model_choice import model_of, model_spec, name_of
from unigap.console.closing import close, command
from unigap.files.durable import check_empty_folder, whole_folder, write_durable
from unigap.files.outputs import refuse_inside_pool
from unigap.models.base import UnifiedModel
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.models.files.model_card import model_card, trained_parts
from unigap.report.cards import RunFacts, check_license, with_run
from unigap.report.run_folder.fit_folder import CONFIG, FitFolder, read_fit
from unigap.report.run_folder.writing import versions
from unigap.stages.earlier_stage import load_stage

CARD = "README.md"
RECIPE = "unigap.yaml"
"""The resolved config in the folder: ``unigap fit --config unigap.yaml`` repeats the training."""


def export_model(run: str, *, out: str, license: str = "unknown", adapter: bool = False) -> None:
    """Export the trained model of a run for the Hugging Face hub: a checkpoint or an adapter, its card and its recipe.

    Args:
        run: The run folder of ``unigap fit``, or its Lightning checkpoint.
        out: Folder to write; must be empty or not exist.
        license: Licence of the weights as the hub writes it, e.g. apache-2.0.
        adapter: Write the LoRA adapter alone instead of merging it into the weights.
    """
    check_license(license)
    check_empty_folder(Path(out))
    refuse_inside_pool(Path(out), "--out")
    fit = read_fit(run)
    content = open_lightning(str(fit.checkpoint), "run")
    model = model_of(fit)
    load_stage(model, str(fit.checkpoint))
    facts = run_facts(fit, content, license)
    with whole_folder(Path(out)) as aside:
        model.save(aside, adapter_only=adapter, recipe=fit.recipe)
        card = with_run(card_of(model, aside, fit), facts)
        write_durable(aside / CARD, card.encode())
        write_durable(aside / RECIPE, (fit.checkpoint.parent / CONFIG).read_bytes())
    close({"model": out}, command("push", "model", out, "OWNER/NAME"))


def card_of(model: UnifiedModel, folder: Path, fit: FitFolder) -> str:
    """Return the card that a model wrote when it was saved, or a plain card if its class writes none."""
    card = folder / CARD
    if card.is_file():
        return card.read_text(encoding="utf-8")
    kind = type(model)
    loading = f"from {kind.__module__} import {kind.__name__}  # whose save wrote this folder"
    base = name_of(model_spec(fit.config, fit.path))
    return model_card(kind.__name__, base, trained_parts(model), loading, "unigap", fit.recipe)


def run_facts(fit: FitFolder, content: Mapping[str, Any], license: str) -> RunFacts:
    """Return the facts of a run for its card, given the content of its Lightning checkpoint."""
    return RunFacts(
        license=license,
        judge=str(fit.recipe.get("model.judge", "self")),
        rounds=int(content.get("PoolData", {}).get("rounds", 0)),
        epochs=int(content["epoch"]) + 1,
        figures=fit.estimates,
        versions=versions(),
    )
