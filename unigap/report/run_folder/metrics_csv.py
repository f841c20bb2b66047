"""Lightning's CSV log, written from the first figure on, so that a refused run leaves no files."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import CSVLogger


class MetricsCSV(CSVLogger):
    """Write ``logs/version_N/metrics.csv``; the settings of the run are in its ``config.yaml``.

    Args:
        save_dir: The run folder.
    """

    def __init__(self, save_dir: str = "") -> None:
        super().__init__(save_dir, name="logs")

    def log_hyperparams(self, params: Any = None) -> None:
        """Write nothing."""

    def save(self) -> None:
        """Write the figures, if there are any."""
        if self._experiment is not None:
            super().save()
