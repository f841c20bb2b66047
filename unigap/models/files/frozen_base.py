"""Frozen weights that a Lightning checkpoint leaves out because the base checkpoint gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from unigap.models.base import UnifiedModel
from unigap.models.files.weights import digest

FROZEN_BASE = "frozen_base"
"""Key under which a checkpoint keeps the names and the SHA-256 of the weights that it leaves out."""
STATES = ("state_dict", "current_model_state")
"""Keys of a checkpoint that hold weights; the second one is there if the first one holds averages."""
PREFIX = "model."
"""Prefix of the model's weights in a stage."""
INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by size in bytes, to compare values bit by bit."""
SHOWN = 12
"""Characters of a SHA-256 in a message."""


class FrozenBase:
    """The frozen weights and buffers of a model as its base checkpoint gives them.

    Args:
        model: The model before other weights are loaded into it.
    """

    def __init__(self, model: UnifiedModel) -> None:
        self._model = model
        self._sums = {name: _row_sums(tensor) for name, tensor in _frozen(model).items()}
        self._digests: dict[tuple[str, ...], str] = {}

    def leave_out(self, checkpoint: dict[str, Any]) -> None:
        """Remove the weights that the base gives from a checkpoint, and note their names and SHA-256.

        Frozen weights and buffers that changed since the model was built stay.
        """
        names = self._unchanged()
        if not names:
            return
        left_out = {PREFIX + name for name in names}
        for key in STATES:
            if key in checkpoint:
                checkpoint[key] = {name: t for name, t in checkpoint[key].items() if name not in left_out}
        if names not in self._digests:
            self._digests[names] = base_digest(self._model, names)
        checkpoint[FROZEN_BASE] = {"sha256": self._digests[names], "names": list(names)}

    def _unchanged(self) -> tuple[str, ...]:
        frozen = _frozen(self._model)
        return tuple(name for name, sums in self._sums.items() if name in frozen and sums == _row_sums(frozen[name]))


def fill_in(model: UnifiedModel, checkpoint: dict[str, Any], where: str) -> None:
    """Add the weights that a checkpoint left out, from a model with the same base; nothing is copied.

    Raises:
        ValueError: See `check_base`.
    """
    check_base(model, checkpoint, where)
    own = {PREFIX + name: tensor for name, tensor in model.state_dict().items()}
    left_out = {PREFIX + name: own[PREFIX + name] for name in left_out_names(checkpoint)}
    for key in STATES:
        if key in checkpoint:
            checkpoint[key] = left_out | checkpoint[key]


def left_out_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the weights that a checkpoint leaves out; older checkpoints leave out none."""
    return tuple(content[FROZEN_BASE]["names"]) if FROZEN_BASE in content else ()


def check_base(model: UnifiedModel, content: Mapping[str, Any], where: str) -> None:
    """Check that a model has the frozen weights on which a checkpoint was trained.

    Args:
        model: The model.
        content: Content of the checkpoint.
        where: The option and path of the checkpoint, for the message.

    Raises:
        ValueError: The model has other frozen weights; the message names both.
    """
    names = left_out_names(content)
    if not names:
        return
    stored, present = str(content[FROZEN_BASE]["sha256"]), model.state_dict().keys()
    own = base_digest(model, names) if set(names) <= present else "other names"
    if own != stored:
        raise ValueError(
            f"{where} was trained on {trained_on(content)} (frozen weights {stored[:SHOWN]}) and does not repeat them; "
            f"this model has others ({own[:SHOWN]}); give the same base checkpoint and LoRA rank"
        )


def base_digest(model: UnifiedModel, names: Iterable[str]) -> str:
    """Return a SHA-256 of some tensors of a model, the same whether they were loaded in bfloat16 or in float32."""
    tensors = model.state_dict()
    return digest({name: _rounded(tensors[name]) for name in names})


def trained_on(content: Mapping[str, Any]) -> str:
    """Return the name of the base checkpoint by the recipe in a Lightning checkpoint."""
    place: Any = content
    for key in ("callbacks", "RunCheckpoint", "recipe", "model", "init_args", "model", "init_args", "checkpoint"):
        place = place.get(key) if isinstance(place, Mapping) else None
    return f"the base checkpoint {place!r}" if place else "another base"


def _frozen(model: UnifiedModel) -> dict[str, torch.Tensor]:
    """Return the stored buffers and the parameters that neither train nor hold options, by name."""
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    tensors = ((name, t) for name, t in model.state_dict().items() if isinstance(t, torch.Tensor))
    return {name: tensor for name, tensor in tensors if name not in trained.union(model.options)}


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def _row_sums(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, str]:
    """Return what changes with a tensor's bits, at the speed of reading them; a SHA-256 takes far longer.

    A permutation within a row, which no training step makes, goes unnoticed.
    """
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    bits = values.detach().view(INTEGER[values.element_size()])
    sums = bits.sum(-1, dtype=torch.int64) if bits.dim() else bits
    return tensor.dtype, tensor.shape, digest({"": sums})
