"""The model in a checkpoint, whatever its family, for commands that are given a folder or a hub id and no class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unigap.models.base import UnifiedModel
from unigap.models.emu3 import Emu3
from unigap.models.files.config import check_family, model_type
from unigap.models.janus import Janus
from unigap.models.showo import ShowO

FAMILIES: dict[str, Callable[..., UnifiedModel]] = {"janus": Janus, "show-o": ShowO, "emu3": Emu3}
"""Classes by the ``model_type`` of config.json."""


def load_model(checkpoint: str, **options: Any) -> UnifiedModel:
    """A checkpoint as the class of its family.

    Args:
        checkpoint: A shipped model by its name (``SHIPPED``), a folder, or a hub id.
        options: Options of that class.

    Raises:
        ValueError: When it is no sound checkpoint of a family, or cannot be had; names it and what is wrong.
    """
    kind = model_type(checkpoint)
    check_family(checkpoint, kind, FAMILIES)
    return FAMILIES[kind](checkpoint, **options)
