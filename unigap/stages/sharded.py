"""Which strategies a stage trains with, and what needs weights that every process holds."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh


def check_strategy(trainer: Trainer) -> None:
    """Check that drawing can reach the weights under the trainer's strategy.

    Raises:
        ValueError: It cannot.
    """
    if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"{type(trainer.strategy).__name__} splits weights where drawing cannot reach them; "
            "use lightning.pytorch.strategies.ModelParallelStrategy, or ddp"
        )


def check_mesh(trainer: Trainer, mesh: DeviceMesh) -> None:
    """Check that a run can shard its weights over a mesh of processes.

    Raises:
        ValueError: The mesh has tensor parallelism, or a callback averages weights, which Lightning keeps whole.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            "the trunk is sharded over data-parallel processes only; set the strategy's "
            f"data_parallel_size={mesh.size()} and tensor_parallel_size=1"
        )
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ValueError(
            "Lightning's weight averaging keeps weights whole and these are sharded; train an adapter with ddp "
            "(model.init_args.model.init_args.lora_rank), or leave the callback out"
        )


def refuse_sharded(trainer: Trainer, who: str) -> None:
    """Check that every process holds the weights it trains.

    Args:
        trainer: Knows the strategy.
        who: What needs them.

    Raises:
        ValueError: When the strategy shards them.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy):
        raise ValueError(
            f"{who} needs weights that are not sharded; train with ddp (an adapter needs less memory: lora_rank), or "
            "remove it"
        )
