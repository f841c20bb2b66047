"""What a run trained, as a checkpoint or an adapter for the Hugging Face hub, with its card and its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.cli.commands.model_choice import model_of, model_spec, name_of
from unigap.files.durable import check_empty_folder, whole_folder, write_durable
from unigap.files.outputs import refuse_inside_pool
from unigap.models.base import UnifiedModel
from unigap.models.files.checkpoints import open_lightning
from unigap.models.files.model_card import model_card, what_trains
from unigap.report.cards import RunFacts, check_license, with_run
from unigap.report.run_folder.fit_folder import CONFIG, FitFolder, read_fit
from unigap.report.run_folder.writing import versions
from unigap.stages.base import load_stage

CARD = "README.md"
RECIPE = "unigap.yaml"
"""The resolved config in the folder: ``unigap fit --config unigap.yaml`` trains it again."""


def export_model(run: str, out: str, license: str, adapter: bool) -> None:
    """Writes what a run of ``unigap fit`` trained as a checkpoint or a LoRA adapter, with its card and its recipe.

    Args:
        run: The run folder, or its Lightning checkpoint.
        out: Folder to write, all or nothing.
        license: Licence of the weights, as the hub writes it.
        adapter: Write the LoRA adapter alone instead of merging it.

    Raises:
        ValueError: There is no such run, it trained nothing that can be exported, ``out`` is not empty, or an option is
            wrong.
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


def card_of(model: UnifiedModel, folder: Path, fit: FitFolder) -> str:
    """The card that a model wrote when it was saved, or a plain one where its class writes none."""
    card = folder / CARD
    if card.is_file():
        return card.read_text(encoding="utf-8")
    kind = type(model)
    loading = f"from {kind.__module__} import {kind.__name__}  # whose save wrote this folder"
    base = name_of(model_spec(fit.config, fit.path))
    return model_card(kind.__name__, base, what_trains(model), loading, "unigap", fit.recipe)


def run_facts(fit: FitFolder, content: Mapping[str, Any], license: str) -> RunFacts:
    """What the card says of a run, given what its Lightning checkpoint holds."""
    return RunFacts(
        license=license,
        judge=str(fit.recipe.get("model.judge", "self")),
        rounds=int(content.get("PoolData", {}).get("rounds", 0)),
        epochs=int(content["epoch"]) + 1,
        figures=fit.estimates,
        versions=versions(),
    )
