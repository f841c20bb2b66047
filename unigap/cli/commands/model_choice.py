"""The model of a verb: the one that its options name, or that of a run or pool."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unigap.cli.commands.demo_folder import MARK
from unigap.console.parser import ClearParser
from unigap.files.typed_json import read_json
from unigap.models.base import UnifiedModel
from unigap.models.engine.memory import settle_memory
from unigap.models.families import family_of, load_model
from unigap.models.files.load_options import check_device
from unigap.report.run_folder.fit_folder import CONFIG, LAST, FitFolder, read_config, read_fit
from unigap.stages.earlier_stage import load_stage

DEFAULT = "shapes"
"""The shipped model that is used if no option names one."""


@dataclass(frozen=True)
class ModelChoice:
    """The options of a verb that choose its model.

    Attributes:
        checkpoint: A shipped model, a folder, a hub id, or a run of ``unigap fit``; None if not given.
        model: A model made from a class path, instead of ``checkpoint``.
        device: Device to run on; None is the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``; None is the default of its class.

    Raises:
        ValueError: ``model`` and ``checkpoint`` or ``dtype`` are both given, or the device does not exist.
    """

    checkpoint: str | None = None
    model: UnifiedModel | None = None
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.model is not None and self.checkpoint is not None:
            raise ValueError("--model and --checkpoint both name a model; give one of them")
        if self.model is not None and self.dtype is not None:
            raise ValueError("--dtype goes with --checkpoint; give the precision as an option of --model")
        if self.device is not None:
            check_device(self.device)

    def load(self) -> UnifiedModel:
        """Load the named model, in eval mode on its device; for a run, with its trained weights.

        Raises:
            ValueError: There is no such checkpoint or run, or an option is wrong.
        """
        return self.place(self._named(self.checkpoint or DEFAULT))

    def load_for_pool(self, pool: str) -> tuple[UnifiedModel, str]:
        """Load the model that sampled a pool: the named one, else that of the run whose folder holds the pool.

        Returns:
            The model, and its name for messages and cards.

        Raises:
            ValueError: There is no such checkpoint, the run's config is damaged, or an option is wrong.
        """
        if self.model is not None:
            return self.place(self.model), type(self.model).__name__
        run = Path(pool).absolute().parent
        config = next((path for path in (run / "checkpoints" / CONFIG, run / CONFIG) if path.is_file()), None)
        if config is None or self.checkpoint is not None:
            named = self.checkpoint or _checkpoint_of_demo(run) or DEFAULT
            return self.place(self._named(named)), named
        spec = model_spec(read_config(config), config)
        return self.place(build_model(spec, self.dtype)), name_of(spec)

    def _named(self, checkpoint: str) -> UnifiedModel:
        if self.model is not None:
            return self.model
        if _is_run(Path(checkpoint)):
            fit = read_fit(checkpoint)
            model = model_of(fit, self.dtype)
            load_stage(model, str(fit.checkpoint))
            return model
        return load_model(checkpoint, **({} if self.dtype is None else {"dtype": self.dtype}))

    def place(self, model: UnifiedModel) -> UnifiedModel:
        """Move a model to its device and set eval mode; without ``device``, a model that is off the CPU stays there."""
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        if self.device is not None or on_cpu:
            model.to(self.device or default_device())
        settle_memory(model, next(model.parameters()).device)
        return model.eval()


def default_device() -> str:
    """Return the default device: the GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def model_of(fit: FitFolder, dtype: str | None = None) -> UnifiedModel:
    """Build the model of a run, with the weights before training.

    Args:
        fit: The run.
        dtype: Precision of the weights; None is that of the run.

    Raises:
        ValueError: The stage trains no unified model, or the config is wrong.
    """
    return build_model(model_spec(fit.config, fit.path), dtype)


def spec_of_checkpoint(checkpoint: str) -> tuple[dict[str, Any], str]:
    """Return the class path and arguments of a checkpoint's model, and the Lightning checkpoint with its weights.

    Args:
        checkpoint: A shipped model, a folder, a hub id, or a run of ``unigap fit``; only a run has a Lightning
            checkpoint, otherwise that is empty.

    Raises:
        ValueError: There is no such checkpoint or run.
    """
    if _is_run(Path(checkpoint)):
        fit = read_fit(checkpoint)
        return model_spec(fit.config, fit.path), str(fit.checkpoint)
    family = family_of(checkpoint)
    return {"class_path": f"{family.__module__}.{family.__qualname__}", "init_args": {"checkpoint": checkpoint}}, ""


def model_spec(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return the class path and arguments of a run's model, from its resolved config.

    Args:
        config: The config.
        where: Path of the run, for messages.

    Raises:
        ValueError: The stage trains no unified model.
    """
    stage = config.get("model") or {}
    spec = (stage.get("init_args") or {}).get("model")
    if not isinstance(spec, dict):
        raise ValueError(
            f"{where}: {stage.get('class_path')} trains no model of its own; give a run of a stage that does"
        )
    return spec


def build_model(spec: Mapping[str, Any], dtype: str | None = None) -> UnifiedModel:
    """Build a model from its class path and arguments, as ``unigap fit`` does.

    Raises:
        ValueError: There is no such class, or an argument is wrong.
    """
    chosen = copy.deepcopy(dict(spec))
    if dtype is not None:
        chosen["init_args"] = {**(chosen.get("init_args") or {}), "dtype": dtype}
    parser = ClearParser(exit_on_error=False)
    parser.add_subclass_arguments(UnifiedModel, "model", required=True)
    made = parser.instantiate(parser.parse_object({"model": chosen}))
    model: UnifiedModel = made["model"]
    return model


def name_of(spec: Mapping[str, Any]) -> str:
    """Return the name of a model for messages and cards: its checkpoint, or its class."""
    return str((spec.get("init_args") or {}).get("checkpoint") or spec["class_path"])


def _is_run(path: Path) -> bool:
    """Whether a path is a run of ``unigap fit``, its folder of checkpoints, or a checkpoint."""
    if path.is_file():
        return path.suffix == ".ckpt"
    return any((folder / LAST).is_file() for folder in (path, path / "checkpoints"))


def _checkpoint_of_demo(run: Path) -> str | None:
    """Return the checkpoint that a demo started from; None if the folder is not a demo's."""
    if not (run / MARK).is_file():
        return None
    plan: dict[str, Any] = read_json(run / MARK, dict[str, Any])
    return str(plan["checkpoint"]) if "checkpoint" in plan else None
