"""The model in a checkpoint folder, whatever its family, for commands that are given a folder and no class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from unigap.models.base import UnifiedModel
from unigap.models.checkpoints import resolve
from unigap.models.emu3 import Emu3
from unigap.models.janus import Janus
from unigap.models.showo import ShowO

FAMILIES: dict[str, Callable[[str], UnifiedModel]] = {"janus": Janus, "show-o": ShowO, "emu3": Emu3}
"""Classes by the ``model_type`` of a folder's config.json."""


def load_model(checkpoint: str) -> UnifiedModel:
    """A checkpoint as the class of its family; as Janus where the folder does not say, or names another.

    Args:
        checkpoint: ``shapes``, a folder, or a hub id.

    Raises:
        ValueError: When it is no sound checkpoint; names the folder and what is wrong.
    """
    config = Path(resolve(checkpoint)) / "config.json"
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        kind = None  # a hub id, or damaged, of which the class says more
    return FAMILIES.get(str(kind), Janus)(checkpoint)
