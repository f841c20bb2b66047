"""Keeps the resolved config of a run where somebody will look for it: beside the checkpoint, in W&B, in its report."""

from __future__ import annotations

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from unigap.callbacks import RunSummary
from unigap.callbacks.run_checkpoint import run_checkpoint
from unigap.run_folder.fit_folder import CONFIG, recipe_of
from unigap.run_folder.wandb_runs import tell_config
from unigap.storage.seals import write_sealed


class RunConfig(SaveConfigCallback):
    """Saves the config into the folder of the logs, as Lightning does, and wherever else it is needed."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes it beside ``last.ckpt`` and tells it to W&B and to the run's summary, on the first process."""
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        config = self.config.clone()
        # whoever takes it up begins a run of their own
        config["ckpt_path"], config["resume"] = None, "never"
        text = self.parser.dump(config, skip_none=False)
        keeper = run_checkpoint(trainer)
        assert keeper is not None, "every run of the command line has one"
        keeper.hold_folder()  # before anything of another run is written over
        write_sealed(keeper.folder / CONFIG, text.encode())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                tell_config(logger.experiment, text)
        recipe = recipe_of(yaml.safe_load(text))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunSummary) and "model.model" in recipe:
                callback.describe(recipe.get("model.model.checkpoint", recipe["model.model"]), recipe)
