"""Train as a user does: a shipped config with overrides through ``unigap fit``, and the run folder read back."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unigap.__main__ import main
from unigap.cli.commands.model_choice import ModelChoice
from unigap.console.stop_signal import Stopped
from unigap.models.base import UnifiedModel
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.report.run_folder.fit_folder import SUMMARY, FitFolder, read_fit
from unigap.seeds import VARIABLE

CONFIGS = Path(__file__).parents[1] / "configs" / "shapes"
Overrides = dict[str, Any]
"""Options of ``unigap fit`` by their full name, with plain JSON values."""

QUIET: Overrides = {
    "trainer.devices": 1,
    "trainer.logger": False,
    "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False,
}
COUNTED: Overrides = {
    "summary.prompts": "shapes",
    "summary.per_cell": 1,
    "summary.plan.candidates": 1,
    "summary.exam": 0,
    "summary.gallery": 1,
}
"""Write ``summary.json``, which holds the counts of every round; the evidence measures on more prompts itself."""


def spec(class_path: str, **init_args: Any) -> dict[str, Any]:
    """Return a class with its arguments as a config names it."""
    return {"class_path": class_path, "init_args": init_args}


@dataclass(frozen=True)
class TrainedRun:
    """A finished run of ``unigap fit``.

    Attributes:
        folder: Its resolved config and where its checkpoint lies.
        checkpoint: Content of ``last.ckpt``.
    """

    folder: FitFolder
    checkpoint: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return int(self.checkpoint["global_step"])

    @property
    def rounds(self) -> list[dict[str, int]]:
        """Counts of every round of the pool; needs the overrides ``COUNTED``."""
        rounds: list[dict[str, int]] = json.loads((self.folder.path / SUMMARY).read_text())["rounds"]
        return rounds

    def callback_state(self, name: str) -> dict[str, Any]:
        """Return what a callback of the run left in the checkpoint.

        Args:
            name: Class name of the callback.
        """
        state: dict[str, Any] = self.checkpoint["callbacks"][name]
        return state

    def model(self) -> UnifiedModel:
        """Load the trained model."""
        return ModelChoice(str(self.folder.path)).load()


def fit(config: str, run: Path, overrides: Overrides) -> TrainedRun:
    """Run ``unigap fit`` in this process and read its folder; for arguments and errors see `run_fit`."""
    run_fit(config, run, overrides)
    folder = read_fit(run)
    return TrainedRun(folder, open_lightning(str(folder.checkpoint), "the checkpoint of the run"))


def run_fit(config: str, run: Path, overrides: Overrides) -> None:
    """Run ``unigap fit`` in this process.

    Args:
        config: Name of a config in ``configs/shapes``.
        run: The run folder.
        overrides: Options that differ from the config, applied in order.

    Raises:
        ValueError: An option is wrong, or the run cannot train.
        Stopped: A signal ended the run.
    """
    words = command(config, run, QUIET | overrides)
    # the tables that a run prints are not part of the evidence
    with contextlib.redirect_stdout(io.StringIO()), _seed_left_alone():
        try:
            main([*words, "--debug"])  # errors are raised here and reported once, by the caller
        except Stopped as stopped:
            raise Stopped(stopped.number, "the same command continues") from None


def command(config: str, run: Path, overrides: Overrides) -> list[str]:
    """Return the command line of a run, without the program's name."""
    words = ["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--run", str(run)]
    return words + [f"--{name}={_word(value)}" for name, value in overrides.items()]


def read_shipped(config: str) -> dict[str, Any]:
    """Return the options that a config in ``configs/shapes`` sets."""
    options: dict[str, Any] = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    return options


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def _seed_left_alone() -> Iterator[None]:
    """Undo ``seed_everything``, so that later measurements in this process do not depend on an earlier run."""
    before = os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
