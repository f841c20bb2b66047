"""Read a run of ``unigap fit``: the resolved config, the checkpoint and the last figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unigap.console.strict_yaml import UnclearYAML, check_yaml
from unigap.estimate import Estimate
from unigap.files.seals import read_sealed, warn_unsealed, was_written
from unigap.files.typed_json import build, read_json
from unigap.report.run_folder.contents import Estimates, Summary, check_shares
from unigap.report.run_folder.curves import Epoch
from unigap.report.run_folder.measured import IN_TRAINING

CONFIG = "config.yaml"
"""The resolved config, which ``unigap fit`` writes next to ``last.ckpt``."""
LAST = "last.ckpt"
CURVES, SUMMARY = "curves.json", "summary.json"
NO_RECIPE = (
    "trainer.logger",
    "trainer.callbacks",
    "trainer.default_root_dir",
    "trainer.enable_",
    "checkpoint",
    "summary",
    "curves",
    "rows",
    "run",
    "data.pool",
    "ckpt_path",
    "weights_only",
    "resume",
    "gap_out",
)
"""Settings about places and output, which do not change the training."""


@dataclass(frozen=True)
class FitFolder:
    """A run of ``unigap fit``.

    Attributes:
        path: The run folder, one above the checkpoints.
        checkpoint: Its Lightning checkpoint.
        config: The resolved config.
        epochs: Its learning curves; empty without ``CurveLog``.
        rows: The same with all figures.
    """

    path: Path
    checkpoint: Path
    config: dict[str, Any]
    epochs: Sequence[Epoch]
    rows: Sequence[Mapping[str, Any]]

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that decide the training, by short name."""
        return recipe_of(self.config)

    @property
    def measured_on(self) -> dict[str, Any]:
        """What the figures of its curves were measured on, as far as the config states it."""
        data, stage = (_arguments(self.config.get(name)) for name in ("data", "model"))
        plan = _arguments(stage.get("eval_plan"))
        found = {"figures": IN_TRAINING, "split": "validation", "seed": plan.get("seed")}
        found |= {"prompts": data.get("eval_prompts"), "per_cell": data.get("eval_per_cell")}
        found |= {"candidates": plan.get("candidates"), "sampling": plan.get("sampling")}
        found |= {"exam": data.get("exam_pictures"), "external": stage.get("external")}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def estimates(self) -> Estimates:
        """Figures after training: on test prompts if there is a summary, otherwise of the last epoch."""
        if was_written(self.path / SUMMARY):
            summary: Summary = read_json(self.path / SUMMARY, Summary)
            return summary.after
        return estimates_of(self.rows[-1]) if self.rows else {}


def read_fit(path: str | Path) -> FitFolder:
    """Read a run of ``unigap fit``.

    Args:
        path: The run folder, the folder of its checkpoints, or one of these.

    Raises:
        ValueError: There is no such run, or its config or curves are damaged.
    """
    checkpoint = find_checkpoint(Path(path))
    config = checkpoint.parent / CONFIG
    if not was_written(config):
        raise ValueError(f"{config} is missing; unigap fit writes it beside the checkpoints, put it back there")
    warn_unsealed(config)
    run = checkpoint.parent.parent
    epochs: list[Epoch] = []
    rows: list[dict[str, Any]] = []
    if was_written(run / CURVES):
        epochs, rows = read_json(run / CURVES, list[Epoch]), read_json(run / CURVES, list[dict[str, Any]])
    return FitFolder(run, checkpoint, read_config(config), epochs, rows)


def check_measured(run: str) -> None:
    """Check that a run of ``unigap fit`` has figures to report; a folder without checkpoints is not looked at.

    Raises:
        ValueError: It has none; the message says why, and which command makes them.
    """
    folder = Path(run)
    if was_written(folder / SUMMARY) or not (folder / "checkpoints" / LAST).is_file():
        return
    fit = read_fit(run)
    summary = _arguments(fit.config.get("summary"))
    again = f"unigap fit --config {fit.checkpoint.parent / CONFIG}"
    if summary.get("folder") == "" or not (summary.get("folder") or summary.get("prompts")):
        raise ValueError(
            f"{run} has no {SUMMARY}: the run measured no test prompts. unigap gap --checkpoint {run} measures the "
            f"trained model; {again} --run NEW --summary.folder NEW trains again with a report"
        )
    if summary.get("folder"):
        raise ValueError(f"{run} has no {SUMMARY}: the run writes it to {summary['folder']}; report that folder")
    raise ValueError(f"{run} has no {SUMMARY}: the run is not finished; {again} --resume must continues it")


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint file of a run, given the file, its folder or the run folder.

    Raises:
        ValueError: There is no checkpoint.
    """
    if path.is_file():
        return path
    found = next((file for file in (path / LAST, path / "checkpoints" / LAST) if file.is_file()), None)
    if found is None:
        raise ValueError(f"{path} holds no {LAST} and no checkpoints/{LAST}; give a run folder of unigap fit")
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read a resolved config as strictly as ``--config``.

    Raises:
        ValueError: It does not match its seal, or is no unambiguous YAML mapping.
    """
    try:
        text = read_sealed(path).decode()
        check_yaml(text)
        config = yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, UnclearYAML) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}; restore it") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no settings; restore it")
    return config


def recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a resolved config that decide the training, by short name."""
    return {name: value for name, value in flat(config).items() if not name.startswith(NO_RECIPE)}


def _arguments(value: Any) -> Mapping[str, Any]:
    """Return the arguments in a section of a config, with or without a class."""
    if not isinstance(value, Mapping):
        return {}
    return value.get("init_args") or {} if "class_path" in value else value


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by short name: without module paths, ``init_args`` levels and nulls.

    >>> flat({"model": {"class_path": "unigap.stages.SFTStage", "init_args": {"lr": 0.1, "judge": None}}, "seed": 3})
    {'model': 'SFTStage', 'model.lr': 0.1, 'seed': 3}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "class_path" in value:
            found[name] = str(value["class_path"]).rpartition(".")[2]
            found |= flat(value.get("init_args") or {}, f"{name}.")
        elif isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name] = value
    return found


def estimates_of(row: Mapping[str, Any]) -> Estimates:
    """Return the estimates in a row of the curves, made of ``x``, ``x_low``, ``x_high`` and ``x_n``.

    Raises:
        ValueError: A number is no share.
    """
    names = [name.removesuffix("_n") for name in row if name.endswith("_n")]
    found = {name: {"value": row[name], "n": row[f"{name}_n"]} for name in names}
    ends = {name: {end: row[f"{name}_{end}"] for end in ("low", "high")} for name in names}
    estimates = {name: build(Estimate, found[name] | ends[name], name) for name in names}
    check_shares(estimates, "")
    return estimates
