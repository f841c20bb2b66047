"""Write a model of any family to a folder: its weights or its adapter, and a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unigap.console import tasks
from unigap.console.quiet import quiet_transformers
from unigap.models.files.lora import check_savable, describe_adapter, is_adapted, save_adapter
from unigap.models.files.model_card import model_card, trained_parts


@dataclass(frozen=True)
class Loading:
    """How to load a saved folder, for the model card.

    Attributes:
        library: Library that loads a checkpoint; ``peft`` loads an adapter.
        checkpoint: Python code that loads a checkpoint.
        adapter: Python code that loads an adapter, with ``{base!r}`` for its base model.
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
    """Write a model and its card.

    Args:
        model: The model.
        net: The transformers network in it, which carries the adapter if there is one.
        base: Folder or hub id of the base weights.
        loading: How to load the folder.
        write: Writes the weights, with an adapter merged, and the processor.
        folder: Folder to write.
        adapter_only: Write only the adapter.
        recipe: Training settings by name, for the card.

    Raises:
        ValueError: The weights are sharded, or ``adapter_only`` without an adapter.
    """
    check_savable(model, adapter_only)
    folder = Path(folder)
    with tasks.task("saving", "saving the model"), quiet_transformers():
        if adapter_only:
            save_adapter(net, folder)
            library, code = "peft", loading.adapter.format(base=base)
        else:
            write(folder)
            library, code = loading.library, loading.checkpoint
    trained = describe_adapter(net, adapter_only) if is_adapted(net) else trained_parts(model)
    card = model_card(folder.resolve().name, base, trained, code, library, recipe or {})
    (folder / "README.md").write_text(card, encoding="utf-8")
