"""Read ``config.json`` of a checkpoint, and check which model family it names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unigap.console.mistakes import shortened
from unigap.models.files.location import resolve

FIRST_LAYOUT = "multi_modality"
"""``model_type`` of Janus-Pro in the original authors' layout, which transformers cannot load, and of JanusFlow."""
JANUS_FLOW, FLOW_PART = "janus_flow", "vision_gen_dec_config"
"""Our name of JanusFlow, and the entry of its config.json that Janus-Pro has not."""


def read_config(checkpoint: str) -> dict[str, Any]:
    """Return the content of ``config.json`` of a folder or a hub id.

    Raises:
        ValueError: The file is neither found nor downloadable, or is not a JSON object.
    """
    file = _config_file(checkpoint)
    return read_object(checkpoint, file.parent, file.name)


def read_object(checkpoint: str, folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file in the folder of a checkpoint.

    Raises:
        ValueError: The file is not a JSON object.
    """
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is a list or a single value")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint {checkpoint!r}: {name} is not a JSON object ({error}); restore it") from error
    return config


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file in front of what is wrong with its content.

    Raises:
        ValueError: The body raised an error of a file, a type, a key or a value.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def model_type(checkpoint: str) -> str:
    """Return the ``model_type`` in ``config.json`` of a folder or a hub id, ``unknown`` if there is none.

    The authors of JanusFlow gave it the type of Janus-Pro; here it is ``janus_flow``.

    Raises:
        ValueError: The file is neither found nor downloadable, or is not a JSON object.
    """
    config = read_config(checkpoint)
    kind = str(config.get("model_type") or "unknown")
    return JANUS_FLOW if kind == FIRST_LAYOUT and FLOW_PART in config else kind


def check_family(checkpoint: str, kind: str, known: Iterable[str]) -> None:
    """Check that a checkpoint belongs to a model family that can be loaded.

    Args:
        checkpoint: The checkpoint, for the message.
        kind: Its model type.
        known: The model types that can be loaded.

    Raises:
        ValueError: ``kind`` is not among the ``known``.
    """
    if kind == FIRST_LAYOUT:
        raise ValueError(
            f"checkpoint {checkpoint!r} is in Janus's original layout; take deepseek-community/Janus-Pro-1B or -7B"
        )
    if kind not in known:
        names = " or ".join(map(repr, known))
        raise ValueError(f"checkpoint {checkpoint!r} is a {kind!r} model, not {names}; use the class of its family")


def _config_file(checkpoint: str) -> Path:
    """Return the path of ``config.json``; that of a hub id is downloaded into the hub's cache if needed."""
    from transformers.utils.hub import cached_file

    folder = resolve(checkpoint)
    if Path(folder).is_dir():
        return Path(folder) / "config.json"
    try:
        return Path(str(cached_file(folder, "config.json")))
    except OSError as error:
        reason = shortened(str(error)).rstrip(".")
        raise ValueError(
            f"checkpoint {checkpoint!r} cannot be downloaded from the hub: {reason}; check its name, or give a folder"
        ) from error
