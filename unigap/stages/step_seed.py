"""Random numbers of a training step that depend on the step alone."""

from __future__ import annotations

import hashlib

import torch
from lightning.pytorch import Trainer


def seed_step(trainer: Trainer, seed: int, batch_idx: int) -> None:
    """Seed torch for one batch from (seed, step, process, place in the step), whatever was drawn before it.

    Args:
        trainer: Knows the step, the process and how many batches a step accumulates.
        seed: Seed of the run.
        batch_idx: Number of the batch in its epoch.
    """
    key = f"{seed}/{trainer.global_step}/{trainer.global_rank}"
    place = batch_idx % trainer.accumulate_grad_batches
    if place:
        key += f"/{place}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1)
