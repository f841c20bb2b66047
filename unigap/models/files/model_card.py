"""Model card of a saved folder: base model, what was trained, recipe, and how to load it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from unigap.files.markdown import table

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(name: str, base: str, trained: str, loading: str, library: str, recipe: Mapping[str, Any]) -> str:
    """Return the text of ``README.md``.

    Args:
        name: Name of the model.
        base: Base model: a hub id, a folder, or a description.
        trained: Description of what was trained.
        loading: Python code that loads it.
        library: ``transformers`` or ``peft``.
        recipe: Training settings by name.
    """
    data = ModelCardData(
        base_model=base if HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        library_name=library,
        pipeline_tag="any-to-any",
        tags=["unigap", "self-improvement"],
    )
    settings = table(["setting", "value"], list(recipe.items())) if recipe else "None was given when it was saved."
    body = [
        f"# {name}",
        "",
        f"Base model: `{base}`. Trained: {trained}.",
        "",
        "## Recipe",
        "",
        settings,
        "",
        "## Loading",
        "",
        "```python",
        loading,
        "```",
        "",
    ]
    return str(ModelCard("\n".join(["---", data.to_yaml(), "---", *body])))


def trained_parts(model: nn.Module) -> str:
    """Return the names of the submodules with trainable parameters, for the model card."""
    names = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    parts = {name.removeprefix("net.").removeprefix("model.") for name in names}
    return ", ".join(sorted({part.split(".")[0] for part in parts}))
