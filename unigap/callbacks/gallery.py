"""Show images of the same few prompts and seeds after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from unigap.callbacks.dynamics_log import show_png
from unigap.callbacks.run_checkpoint import run_checkpoint
from unigap.console import tasks
from unigap.evaluation.gap import EVAL_ROUND, both_verdicts
from unigap.files.images import to_image
from unigap.files.png import save_figure
from unigap.loop.ranks import ranks_of
from unigap.loop.sampling import sample_candidates
from unigap.models.engine.sharding import whole
from unigap.records import Prompt
from unigap.report.plots.gallery_plot import VERDICTS, GalleryImage, gallery_plot
from unigap.stages import ImproveStage

if TYPE_CHECKING:
    import wandb

COLUMNS = ("epoch", "prompt", "category", "difficulty", "seed", "image", "p_yes", "judge", "external")


class Gallery(Callback):
    """Sample images for a fixed set of held-out prompts with fixed seeds, before training and after epochs.

    Each time a grid of the images, with both verdicts, is saved as ``epoch-NNNN.png``. TensorBoard shows the grids. In
    W&B the table ``gallery`` gets one row for each image: epoch, prompt, image, the own judge's probability of yes,
    external verdict. Training is not affected.

    Args:
        prompts: Number of prompts, evenly spaced over the evaluation prompts of the run.
        every_n_epochs: Epochs between two grids.
        folder: Folder of the grids; null is ``drawings`` in the run folder.
    """

    def __init__(self, prompts: int = 8, every_n_epochs: int = 1, folder: str | None = None) -> None:
        for name, value in (("prompts", prompts), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise ValueError(f"Gallery.{name} must be >= 1, got {value}; remove the callback to draw none")
        self.prompts, self.every_n_epochs, self.folder = prompts, every_n_epochs, folder
        self._table: wandb.Table | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse stages that sample no images."""
        if stage == "fit" and not isinstance(pl_module, ImproveStage):
            raise ValueError(f"Gallery shows what self-improvement stages draw, not {type(pl_module).__name__}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample with the initial weights, unless the run is resumed."""
        if trainer.global_step == 0:
            self._show(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample every ``every_n_epochs`` epochs."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0:
            self._show(trainer, pl_module, epoch)

    def _show(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        assert isinstance(pl_module, ImproveStage)
        # one process samples; the others wait here for as long as it takes
        with ranks_of(trainer).together(), trainer.precision_plugin.forward_context(), whole(pl_module.model):
            if not trainer.is_global_zero:
                return
            images = sample_gallery(pl_module, spread(pl_module.pool_data.eval_prompts, self.prompts))
        path = self._grid_folder(trainer) / f"epoch-{epoch:04d}.png"
        save_figure(gallery_plot(images, f"epoch {epoch}"), path)
        loggers = [logger for logger in trainer.loggers if not isinstance(logger, WandbLogger)]
        show_png(loggers, "gallery", path, trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._tabulate(logger, epoch, images)

    def _grid_folder(self, trainer: Trainer) -> Path:
        if self.folder:
            return Path(self.folder)
        keeper = run_checkpoint(trainer)
        if keeper is None:
            raise ValueError("Gallery.folder must be given where there is no RunCheckpoint to lie beside")
        return keeper.folder.parent / "drawings"

    def _tabulate(self, logger: WandbLogger, epoch: int, images: Sequence[GalleryImage]) -> None:
        import wandb

        if self._table is None:
            self._table = wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL")
        for one in images:
            judge, external = "yes" if one.p_yes >= 0.5 else "no", VERDICTS[one.right]
            about = (epoch, one.prompt, one.category, one.difficulty, str(one.seed))
            self._table.add_data(*about, wandb.Image(one.picture), one.p_yes, judge, external)
        # no step: W&B drops data logged at a step below the last one
        logger.experiment.log({"gallery": self._table})


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Return ``count`` prompts, evenly spaced, in their order."""
    count = min(count, len(prompts))
    return [prompts[number * len(prompts) // count] for number in range(count)]


def sample_gallery(stage: ImproveStage, prompts: Sequence[Prompt]) -> list[GalleryImage]:
    """Sample one image for each prompt, with the seeds and the sampling recipe of the stage's evaluation."""
    plan, images = stage.eval_plan, []
    how = (1, EVAL_ROUND, plan.sampling_seed, plan.sampling, plan.images_per_batch)
    with tasks.task("measuring", "gallery", len(prompts), "image", tasks.IMAGE_PARTS):
        for sampled in sample_candidates(stage.model, prompts, *how):
            candidates, pixels_BCHW = sampled.candidates, sampled.pixels_BCHW
            own_B, right_B = both_verdicts(stage.model, stage.own_judge, stage.external, sampled)
            right = [None] * len(candidates) if right_B is None else right_B.tolist()
            rows = zip(candidates, pixels_BCHW, own_B.sigmoid().tolist(), right, strict=True)
            for candidate, pixels_CHW, p_yes, found in rows:
                prompt = candidate.prompt
                about = (prompt.text, prompt.category, prompt.difficulty, candidate.seed)
                images.append(GalleryImage(*about, to_image(pixels_CHW), p_yes, found))
    return images
