"""Hands figures and pictures of a callback to whatever logger a run has, and keeps them in a folder."""

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
    """Logs numbers to every logger, whatever its ``log_every_n_steps``; those that are not finite are left out."""
    told = {name: value for name, value in figures.items() if math.isfinite(value)}
    for logger in loggers:
        logger.log_metrics(told, step)


def show_picture(loggers: Sequence[Logger], folder: Path, name: str, picture: Figure, step: int) -> Path:
    """Saves a picture as ``name-step.png`` and shows it in every logger that can.

    Returns:
        The file.
    """
    path = folder / f"{name}-{step:06d}.png"
    save_figure(picture, path)
    show_png(loggers, f"dynamics/{name}", path, step)
    return path


def show_png(loggers: Sequence[Logger], name: str, path: Path, step: int) -> None:
    """Shows a PNG file in every logger that can."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            # no step: W&B drops what is logged at a step below one it has seen
            logger.log_image(name, [str(path)], caption=[f"step {step}"])
        elif isinstance(logger, TensorBoardLogger):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")


def keep_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``dynamics.json`` anew, one object a row."""
    write_sealed(folder / "dynamics.json", json.dumps(list(rows), indent=1).encode())
