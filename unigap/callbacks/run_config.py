"""Save the resolved config of a run: in its folder, next to the checkpoint, in W&B and in its report."""

from __future__ import annotations

from pathlib import Path

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from unigap.callbacks import RunSummary
from unigap.callbacks.run_checkpoint import run_checkpoint
from unigap.files.seals import write_sealed
from unigap.report.run_folder.fit_folder import CONFIG, recipe_of
from unigap.report.run_folder.places import unplace_run
from unigap.report.run_folder.wandb_runs import tell_config


class RunConfig(SaveConfigCallback):
    """Save the config only when the run has passed all checks, so that a refused run replaces no config."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet, unlike Lightning's callback."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config, on the first process."""
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config into the run folder and next to ``last.ckpt``; pass it to W&B and to the run's summary."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        config = self.config.clone()
        run = Path(config["run"])
        unplace_run(config)
        # the saved config begins a new run
        config["ckpt_path"], config["resume"] = None, "never"
        text = self.parser.dump(config, skip_unset=False, skip_validation=True)
        keeper = run_checkpoint(trainer)
        assert keeper is not None, "every run of the command line has one"
        keeper.hold_folder()  # before anything of another run is written over
        for folder in (run, keeper.folder):
            write_sealed(folder / CONFIG, text.encode())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                tell_config(logger.experiment, text)
        recipe = recipe_of(yaml.safe_load(text))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunSummary) and "model.model" in recipe:
                callback.describe(recipe.get("model.model.checkpoint", recipe["model.model"]), recipe)
