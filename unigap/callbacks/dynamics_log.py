"""Write the numbers and plots of a callback to the loggers of a run and to a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from unigap.files.png import save_figure
from unigap.files.seals import write_sealed


def log_figures(loggers: Sequence[Logger], figures: Mapping[str, float], step: int) -> None:
    """Log the finite numbers to every logger, regardless of ``log_every_n_steps``."""
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    for logger in loggers:
        logger.log_metrics(finite, step)


def show_picture(loggers: Sequence[Logger], folder: Path, name: str, picture: Figure, step: int) -> Path:
    """Save a plot as ``name-step.png`` and show it in every logger that can.

    Returns:
        The file.
    """
    path = folder / f"{name}-{step:06d}.png"
    save_figure(picture, path)
    show_png(loggers, f"dynamics/{name}", path, step)
    return path


def show_png(loggers: Sequence[Logger], name: str, path: Path, step: int) -> None:
    """Show a PNG file in every logger that can."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            # no step: W&B drops data logged at a step below the last one
            logger.log_image(name, [str(path)], caption=[f"step {step}"])
        elif isinstance(logger, TensorBoardLogger):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")


def keep_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``dynamics.json``; one object for each row."""
    write_sealed(folder / "dynamics.json", json.dumps(list(rows), indent=1).encode())
