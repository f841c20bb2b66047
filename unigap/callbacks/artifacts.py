"""The pool and the trained weights of a run as W&B artifacts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from unigap.files.outputs import POOL_FILE
from unigap.models.files.lora import is_adapted
from unigap.pool import Pool
from unigap.pool.layout import round_folder
from unigap.stages import ImproveStage
from unigap.stages.sharded import refuse_sharded

SHORT = 12
"""Characters of a digest in an alias."""


class Artifacts(Callback):
    """Upload the pool and the weights to W&B when training ends; an offline run uploads them with ``wandb sync``.

    The artifact ``pool`` has the digest of the pool's last manifest, which covers every byte of the pool, in its
    metadata and, shortened, as an alias. Pools with equal digests are one version; its metadata holds the number of
    rounds. The artifact ``model`` is a LoRA adapter if the run trains one, otherwise a whole checkpoint.

    Args:
        pool: Upload the pool.
        model: Upload the weights.
    """

    def __init__(self, pool: bool = True, model: bool = True) -> None:
        self.pool, self.model = pool, model

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse runs without a W&B run, without a pool, or without a process that holds all weights."""
        if stage != "fit":
            return
        if not isinstance(pl_module, ImproveStage):
            raise ValueError(f"Artifacts uploads what self-improvement stages make, not {type(pl_module).__name__}")
        if not any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
            raise ValueError("Artifacts are kept by W&B; add --trainer.logger WandbLogger, or remove the callback")
        if self.model:
            refuse_sharded(trainer, "Artifacts.model")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Upload pool and weights."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, ImproveStage)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                if self.pool:
                    _log_pool(logger.experiment, pl_module)
                if self.model:
                    _log_model(logger.experiment, pl_module)


def _log_pool(run: Any, stage: ImproveStage) -> None:
    import wandb

    # an absolute path: wandb sync may run in another directory
    pool = Pool.open(stage.pool_data.pool_folder.resolve())
    state = pool.state(upto=stage.pool_data.rounds - 1)
    artifact = wandb.Artifact("pool", type="dataset", metadata={**state, "codebook": pool.model})
    artifact.add_file(str(pool.folder / POOL_FILE), policy="immutable")
    for number in range(stage.pool_data.rounds):
        folder = round_folder(pool.folder, number)
        # committed rounds never change, so nothing is copied
        artifact.add_dir(str(folder), name=folder.name, policy="immutable")
    run.log_artifact(artifact, aliases=["latest", f"sha256-{str(state['sha256'])[:SHORT]}"])


def _log_model(run: Any, stage: ImproveStage) -> None:
    import wandb

    adapted = is_adapted(stage.model)
    with tempfile.TemporaryDirectory() as folder:
        stage.model.save(Path(folder), adapter_only=adapted)
        metadata = {"start": stage.start_key, "adapter": adapted}
        artifact = wandb.Artifact("model", type="model", metadata=metadata)
        artifact.add_dir(folder)
        run.log_artifact(artifact)
