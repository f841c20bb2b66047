"""Figures of a run in trackio, a tracker that keeps its data on this machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_only


class TrackioLogger(Logger):
    """Log the figures of a run to trackio; ``trackio show --project unigap`` shows them.

    trackio keeps its data in the folder that ``TRACKIO_DIR`` names. A continued run goes on in the same trackio run.

    Args:
        project: Project in trackio.
        name: Name of the run in trackio; empty takes the name of the run folder.
        save_dir: The run folder.

    Raises:
        ValueError: trackio is not installed.
    """

    def __init__(self, project: str = "unigap", name: str = "", save_dir: str = "") -> None:
        super().__init__()
        if importlib.util.find_spec("trackio") is None:
            raise ValueError("TrackioLogger needs trackio; pip install trackio")
        self.project, self._name, self._save_dir = project, name or Path(save_dir).name or "run", save_dir
        self._experiment: Any = None

    @property
    def name(self) -> str:
        """Project in trackio."""
        return self.project

    @property
    def version(self) -> str:
        """Name of the run in trackio."""
        return self._name

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return self._save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run in trackio, begun at the first figure."""
        if self._experiment is None:
            trackio = importlib.import_module("trackio")
            self._experiment = trackio.init(project=self.project, name=self._name, resume="allow", embed=False)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures at a step."""
        self.experiment.log({name: float(value) for name, value in metrics.items()}, step=step)

    def log_hyperparams(self, params: Any = None) -> None:
        """Log nothing: the settings of the run are in its ``config.yaml``."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run in trackio, which waits until its figures are written."""
        if self._experiment is not None:
            self._experiment.finish()
            self._experiment = None
