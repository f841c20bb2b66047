"""Reopen an epoch that the length of the run cut short, when a longer run continues from it."""

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
    """The place where an epoch ended before its last row, with the callbacks' states before its end.

    Attributes:
        by: ``limit`` if ``limit_train_batches`` ended it, otherwise ``stop``.
        validated: Whether the validation at that place is done.
        callbacks: States of the callbacks by key.
    """

    by: Literal["limit", "stop"]
    validated: bool
    callbacks: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """Return the cut as plain values and tensors."""
        return {"by": self.by, "validated": self.validated, "callbacks": self.callbacks}


def length_of(trainer: Trainer) -> dict[str, Any]:
    """Return the settings that decide how long a run trains, by name; times in seconds."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "max_time": [callback._duration for callback in callbacks if isinstance(callback, Timer)],
        LIMIT: trainer.limit_train_batches,
    }


def cut_here(trainer: Trainer, validated: bool = False) -> Cut | None:
    """Return the cut if training ends after this batch although rows of the epoch are left.

    After a limit the next epoch begins anew, so only the first epoch can be reopened when the limit is lifted.
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
    """Return the states of the callbacks in new containers; tensors are shared."""
    states = {c.state_key: c.state_dict() for c in trainer.callbacks}  # type: ignore[attr-defined]
    copied: dict[str, Any] = apply_to_collection(states, torch.Tensor, lambda tensor: tensor)
    return {key: state for key, state in copied.items() if state}


def reopen(checkpoint: dict[str, Any], own_key: str, length: Mapping[str, Any]) -> bool:
    """Move the checkpoint of a longer run back into the epoch that was cut short, if there is one.

    Args:
        checkpoint: The checkpoint; it is changed.
        own_key: Key of the ``RunCheckpoint`` among its callbacks.
        length: The length of the continued run.

    Returns:
        Whether the validation at that place is done.
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
    """Make sure that a changed ``limit_train_batches`` cut no finished epoch.

    Raises:
        ValueError: It cut one.
    """
    if old[LIMIT] != new[LIMIT] and checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]:
        raise ValueError(
            f"trainer.{LIMIT} is {new[LIMIT]} and was {old[LIMIT]} in epochs that lie behind; set it back, or begin a "
            "new run"
        )
