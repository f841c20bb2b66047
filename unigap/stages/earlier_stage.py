"""Start from the weights of an earlier stage."""

from __future__ import annotations

from unigap.models.base import UnifiedModel
from unigap.models.files.frozen_base import check_base, left_out_names
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.models.files.lora import adapter_scales

ADAPTER_SCALES = "adapter_scales"
"""Key under which a checkpoint keeps the scales of its adapted layers, which the weights alone do not tell."""


def load_stage(model: UnifiedModel, path: str) -> None:
    """Load the weights of an earlier stage's Lightning checkpoint into ``model``, which keeps its own options.

    Raises:
        ValueError: When the file is no checkpoint, or holds another model, an adapter of another scale, or weights that
            were trained on another base.
    """
    content = open_lightning(path, "init_from")
    state = {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}
    present = model.state_dict()
    kept = {name: present[name] for name in (*model.options, *left_out_names(content)) if name in present}
    try:
        model.load_state_dict(state | kept)
    except RuntimeError as error:
        raise ValueError(
            f"init_from {path!r} holds the weights of another model; give the same checkpoint and LoRA rank"
        ) from error
    check_base(model, content, f"init_from {path!r}")
    stored, own = content.get(ADAPTER_SCALES, {}), adapter_scales(model)
    other = next((name for name in stored if stored[name] != own.get(name)), None)
    if other:
        raise ValueError(
            f"init_from {path!r} was trained with lora_alpha / lora_rank = {stored[other]:g} on {other}, and this "
            f"model has {own.get(other, 0):g}; give the same lora_alpha"
        )
