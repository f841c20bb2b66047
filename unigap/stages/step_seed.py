"""Random numbers of a training step that depend on the step alone."""

from __future__ import annotations

import hashlib

import torch
from lightning.pytorch import Trainer


def seed_step(trainer: Trainer, seed: int) -> None:
    """Seeds torch for one step from (seed, step, process): what was drawn before it, or in an earlier life, is nothing.

    Args:
        trainer: Knows the step and the process.
        seed: Seed of the run.
    """
    key = f"{seed}/{trainer.global_step}/{trainer.global_rank}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1)
