"""An epoch that the run's length cut short, and how it is reopened when the run is given more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning_utilities.core.apply_func import apply_to_collection

from unigap.loop.progress import batches_trained, is_inside_epoch, training_is_over

LIMIT = "limit_train_batches"


@dataclass(frozen=True)
class Cut:
    """Where an epoch ended before its last row, and the callbacks as they were before its end.

    Attributes:
        by: ``limit`` where ``limit_train_batches`` ended it, else ``stop``.
        validated: Whether the validation at that place is over.
        callbacks: States of the callbacks by their keys.
    """

    by: Literal["limit", "stop"]
    validated: bool
    callbacks: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """The cut as plain values and tensors."""
        return {"by": self.by, "validated": self.validated, "callbacks": self.callbacks}


def length_of(trainer: Trainer) -> dict[str, Any]:
    """The settings that say how long a run trains, by name, as plain values; times in seconds."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "max_time": [callback._duration for callback in callbacks if isinstance(callback, Timer)],
        LIMIT: trainer.limit_train_batches,
    }


def cut_here(trainer: Trainer, validated: bool = False) -> Cut | None:
    """The cut, where training ends behind the present batch though rows of its epoch are left.

    A limit makes the next epoch begin anew, so only the first epoch can be reopened when the limit is lifted.
    """
    loop: Any = trainer.fit_loop
    if not is_inside_epoch(trainer) or batches_trained(trainer) >= len(loop._combined_loader.flattened[0]):
        return None
    begun = loop.epoch_progress.current.started
    over = training_is_over(trainer)
    if not loop.epoch_loop.batch_progress.is_last_batch:
        return Cut("stop", validated, _callback_states(trainer)) if over else None
    if begun == 1 and (over or loop.max_epochs == 1):
        return Cut("limit", validated, _callback_states(trainer))
    return None


def _callback_states(trainer: Trainer) -> dict[str, Any]:
    """States of the callbacks, in containers of their own; tensors are shared."""
    states = {c.state_key: c.state_dict() for c in trainer.callbacks}  # type: ignore[attr-defined]
    copied: dict[str, Any] = apply_to_collection(states, torch.Tensor, lambda tensor: tensor)
    return {key: state for key, state in copied.items() if state}


def reopen(checkpoint: dict[str, Any], own_key: str, length: Mapping[str, Any]) -> bool:
    """Put the checkpoint of a longer run back into the epoch that was cut short, if one was.

    Args:
        checkpoint: The checkpoint; it is changed.
        own_key: Key of the ``RunCheckpoint`` among its callbacks.
        length: The length of the run that goes on.

    Returns:
        Whether the validation at that place is over.
    """
    state = checkpoint["callbacks"][own_key]
    cut = state["cut"]
    if not cut or (cut["by"] == "limit" and length[LIMIT] == state["length"][LIMIT]):
        return False
    checkpoint["callbacks"] = {**cut["callbacks"], own_key: state}
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    for progress in (epochs["total"], epochs["current"]):
        progress["processed"] -= 1
    return bool(cut["validated"])


def check_limit(checkpoint: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Make sure that a changed ``limit_train_batches`` cut no epoch that lies behind.

    Raises:
        ValueError: It did.
    """
    if old[LIMIT] != new[LIMIT] and checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]:
        raise ValueError(
            f"trainer.{LIMIT} is {new[LIMIT]} and was {old[LIMIT]} in epochs that lie behind; set it back, or begin a "
            "new run"
        )
