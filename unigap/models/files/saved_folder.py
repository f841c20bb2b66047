"""Writing a model to a folder, the same for every family: its weights or its adapter alone, and a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unigap.models.files.lora import check_savable, is_adapted, save_adapter, what_was_adapted
from unigap.models.files.model_card import model_card, what_trains


@dataclass(frozen=True)
class Loading:
    """How what a family saves is loaded again, as the card says it.

    Attributes:
        library: What loads a checkpoint; an adapter is loaded by ``peft``.
        checkpoint: Python that loads one.
        adapter: Python that loads an adapter, with ``{base!r}`` for what it lies on.
    """

    library: str
    checkpoint: str
    adapter: str


def save_folder(
    model: nn.Module,
    net: Any,
    base: str,
    loading: Loading,
    write: Callable[[Path], None],
    folder: str | Path,
    adapter_only: bool,
    recipe: Mapping[str, Any] | None,
) -> None:
    """Writes a model and its card.

    Args:
        model: The model.
        net: The transformers model in it, on which its adapter lies if it has one.
        base: What its weights are called where they came from.
        loading: How the folder is loaded.
        write: Writes the weights, an adapter merged into them, and whatever reads its text and its images.
        folder: The folder.
        adapter_only: Write the adapter instead.
        recipe: Settings by name, for the card.

    Raises:
        ValueError: Its weights are sharded, or there is no adapter that could be written alone.
    """
    check_savable(model, adapter_only)
    folder = Path(folder)
    if adapter_only:
        save_adapter(net, folder)
        library, code = "peft", loading.adapter.format(base=base)
    else:
        write(folder)
        library, code = loading.library, loading.checkpoint
    trained = what_was_adapted(net, adapter_only) if is_adapted(net) else what_trains(model)
    card = model_card(folder.resolve().name, base, trained, code, library, recipe or {})
    (folder / "README.md").write_text(card, encoding="utf-8")
