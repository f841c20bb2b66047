"""The optimizer of a stage and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.optim import LBFGS, AdamW, Optimizer, SparseAdam
from torch.optim.lr_scheduler import LambdaLR

from unigap.stages.lr_schedule import LRSchedule, check_has_end, share_done

OptimizerOfWeights = Callable[[Iterable[torch.nn.Parameter], float], Optimizer]
"""Make an optimizer from weights and a learning rate. The config gives a class; its ``init_args`` hold no ``lr``."""
UNSUITED = {
    SparseAdam: "needs sparse gradients, and those of a model here are dense",
    LBFGS: "evaluates a batch many times for one step, and a step here trains on its batch once",
}


def check_rates(lr: float, weight_decay: float, warmup_steps: int, optimizer: OptimizerOfWeights | None) -> None:
    """Check the options of the optimizer.

    Raises:
        ValueError: One is out of range, or ``weight_decay`` is given beside an optimizer that has its own.
    """
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be > 0 and finite, got {lr}; common values are 1e-6 to 5e-4")
    if warmup_steps < 0 or not 0 <= weight_decay < math.inf:
        raise ValueError(f"warmup_steps and weight_decay must be >= 0, got {warmup_steps} and {weight_decay}")
    if optimizer is not None and weight_decay:
        raise ValueError(
            f"weight_decay {weight_decay} is an option of the default AdamW, and optimizer names another; set "
            "optimizer.init_args.weight_decay, and leave weight_decay out"
        )


def make_optimizer(
    trained: list[torch.nn.Parameter], lr: float, weight_decay: float, optimizer: OptimizerOfWeights | None
) -> Optimizer:
    """Return the optimizer of the weights that train.

    Args:
        trained: The weights.
        lr: Learning rate after warm-up.
        weight_decay: Weight decay of the default.
        optimizer: Makes the optimizer; None is AdamW.

    Raises:
        ValueError: Weights are in bfloat16, or the optimizer cannot train them.
    """
    if any(p.dtype == torch.bfloat16 for p in trained):
        raise ValueError(
            "bfloat16 weights round an optimizer's small steps away; set the model's dtype to float32 with "
            "trainer.precision=bf16-mixed, or lora_rank, or train with ModelParallelStrategy"
        )
    if optimizer is None:
        return AdamW(trained, lr=lr, weight_decay=weight_decay)
    made = optimizer(trained, lr)
    for unsuited, reason in UNSUITED.items():
        if isinstance(made, unsuited):
            raise ValueError(f"optimizer {unsuited.__name__} {reason}; choose another, e.g. torch.optim.AdamW")
    return made


def with_schedule(optimizer: Optimizer, warmup_steps: int, schedule: LRSchedule, trainer: Trainer) -> dict[str, Any]:
    """Return what ``configure_optimizers`` returns: the optimizer, and its learning rate for each step.

    The rate rises linearly over ``warmup_steps`` steps; at every step it is multiplied by the schedule's factor.

    Raises:
        ValueError: The schedule depends on the end of a run that has none.
    """
    check_has_end(schedule, trainer)
    rise = max(1, warmup_steps)

    # a function and not an object: LambdaLR would write an object's attributes into checkpoints
    def factor(step: int) -> float:
        return min(1.0, (step + 1) / rise) * schedule.factor(share_done(trainer))

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
