"""Load a checkpoint as the class of its model family, for commands that take a folder or a hub id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unigap.models.bagel import Bagel
from unigap.models.base import UnifiedModel
from unigap.models.emu3 import Emu3
from unigap.models.files.config import check_family, model_type
from unigap.models.janus import Janus
from unigap.models.janus_flow import JanusFlow
from unigap.models.showo import ShowO
from unigap.models.vila_u import VilaU

FAMILIES: dict[str, type[UnifiedModel]] = {
    "janus": Janus,
    "show-o": ShowO,
    "emu3": Emu3,
    "bagel": Bagel,
    "janus_flow": JanusFlow,
    "vila_u_llama": VilaU,
}
"""Model classes by the ``model_type`` in config.json."""


def load_model(checkpoint: str, **options: Any) -> UnifiedModel:
    """Load a checkpoint as the class of its family.

    Args:
        checkpoint: Name of a shipped model (``SHIPPED``), a folder, or a hub id.
        options: Constructor arguments of that class.

    Raises:
        ValueError: It is not a sound checkpoint of a family, or cannot be downloaded; names it and the fault.
    """
    make: Callable[..., UnifiedModel] = family_of(checkpoint)
    return make(checkpoint, **options)


def family_of(checkpoint: str) -> type[UnifiedModel]:
    """Return the model class of a checkpoint's family.

    Args:
        checkpoint: As in ``load_model``.

    Raises:
        ValueError: It is not a checkpoint of a family, or cannot be downloaded.
    """
    kind = model_type(checkpoint)
    check_family(checkpoint, kind, FAMILIES)
    return FAMILIES[kind]
