"""Place the files of a run below its run folder, except those with an explicit path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jsonargparse import Namespace

from unigap.report.run_folder.fit_folder import CONFIG, CURVES, LAST, SUMMARY, read_config

POOL, CHECKPOINTS = "data.init_args.pool", "checkpoint.folder"
PLACES = {
    POOL: "pool",
    CHECKPOINTS: "checkpoints",
    "summary.folder": "",
    "curves.folder": "",
    "rows.path": "rows.jsonl",
    "model.init_args.out": "model",
    "trainer.default_root_dir": "",
}
"""Options that follow the run folder while they are null, each with its place in that folder."""
CALLBACK_FOLDERS = {"Gallery": "drawings", "Dynamics": "dynamics"}
"""The same for the ``folder`` of callbacks under ``trainer.callbacks``."""
LIGHTNING_LOGS = "lightning_logs"
"""Lightning's default name for logs."""
GALLERY = ("gallery.json", "rejudged.json")


def find_run(verb: str, config: Namespace) -> str | None:
    """Return the run folder of a config: ``run``, otherwise the parent of an explicit checkpoint folder.

    Args:
        verb: ``fit``, ``validate`` or ``predict``.
        config: The resolved config of the verb.

    Raises:
        ValueError: The verb writes and has no place to write to, or the run folder is a file.
    """
    run: str | None = config["run"]
    checkpoints = config[CHECKPOINTS]
    if not run and checkpoints and Path(checkpoints).parent != Path():
        run = str(Path(checkpoints).parent)
    if not run and verb == "fit":
        raise ValueError("fit needs a run folder, for pool, checkpoints and results; give --run runs/NAME")
    if not run and verb == "predict" and not config.get(POOL):
        raise ValueError("predict needs a pool to write to; give --run runs/NAME, or --data.pool DIR")
    if run and Path(run).exists() and not Path(run).is_dir():
        raise ValueError(f"--run {run!r} is a file; give a folder")
    return run or None


def place_run(config: Namespace, run: str | None) -> None:
    """Put all files of a run into its folder; without a run folder, nothing is logged to files.

    Args:
        config: The resolved config of a verb; it is changed.
        run: The run folder.
    """
    config["run"] = run
    if run is None:
        loggers = list(_loggers(config))
        config["trainer"]["logger"] = [one for one in loggers if one["init_args"].get("save_dir") != ""] or False
        return
    for option, default in _defaults(config, run).items():
        if config[option] is None:
            config[option] = default
    for callback, folder in _callbacks(config, run):
        if not callback["init_args"].get("folder"):
            callback["init_args"]["folder"] = folder
    for logger in _loggers(config):
        options = logger["init_args"]
        if options.get("save_dir") == "":
            options["save_dir"] = run
            if options.get("name") == LIGHTNING_LOGS:
                options["name"] = "logs"
        wandb = logger["class_path"].endswith(".WandbLogger")
        # a sweep names its runs itself
        if wandb and options.get("name") is None and "WANDB_SWEEP_ID" not in os.environ:
            options["name"] = Path(run).name


def unplace_run(config: Namespace) -> None:
    """Reset options at their default place to null, so that another ``--run`` moves all of them.

    Args:
        config: A config after ``place_run``; it is changed.
    """
    run = config["run"]
    for option, default in _defaults(config, run).items():
        if config[option] == default:
            config[option] = None
    for callback, folder in _callbacks(config, run):
        if callback["init_args"].get("folder") == folder:
            callback["init_args"]["folder"] = None
    for logger in _loggers(config):
        options = logger["init_args"]
        if options.get("save_dir") == run:
            options["save_dir"] = ""
        if logger["class_path"].endswith(".WandbLogger") and options.get("name") == Path(run).name:
            options["name"] = None


def refuse_other_run(config: Namespace, resume: str) -> None:
    """Make sure that a run does not write into a folder with the results of another run.

    Args:
        config: The config of ``fit`` after ``place_run``, with the checkpoint it continues from in ``ckpt_path``.
        resume: The value of ``--resume``.

    Raises:
        ValueError: It would; the message names a result and a remedy.
    """
    run = Path(config["run"])
    mine = [Path(config[option]).resolve() for option in (POOL, CHECKPOINTS) if config.get(option)]
    owner = _owner(run, config)
    found = next((file for file in _results(config) if file.exists()), None)
    named = config["ckpt_path"]
    if named:
        begun = owner == mine or any(Path(named).resolve().is_relative_to(part) for part in (mine[-1], run.resolve()))
    else:
        begun = resume != "never" and owner == mine
    if found and not begun and owner == mine:
        raise ValueError(
            f"{found} is of an earlier run; begin it again or continue it with --resume auto, or give another --run"
        )
    if owner not in (None, mine) or (found and not begun):
        raise ValueError(
            f"run folder {run}: {found or run / CONFIG} is of another run; give this one a folder of its own with "
            "--run, or continue the other with --resume must and its own pool and checkpoint folders"
        )


def _owner(run: Path, config: Namespace) -> list[Path] | None:
    """Return pool and checkpoint folder of the run whose config lies in the run folder, None without a config."""
    if not (run / CONFIG).is_file():
        return None
    recorded = read_config(run / CONFIG)
    owner = []
    for option in (POOL, CHECKPOINTS):
        value: object = recorded
        for part in option.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if config.get(option):
            owner.append(Path(str(value) if value else run / PLACES[option]).resolve())
    return owner


def _results(config: Namespace) -> Iterator[Path]:
    if config["summary"]["folder"]:
        yield from (Path(config["summary"]["folder"]) / name for name in (SUMMARY, *GALLERY))
    if config["curves"]["folder"]:
        yield Path(config["curves"]["folder"]) / CURVES
    if config["rows"]["path"]:
        yield Path(config["rows"]["path"])
    yield Path(config[CHECKPOINTS]) / LAST


def _defaults(config: Namespace, run: str) -> dict[str, str]:
    """Return the options of this config that may follow the run folder, with their places."""
    places = {option: str(Path(run) / place) for option, place in PLACES.items() if option in config}
    if not config["summary"]["prompts"]:
        del places["summary.folder"]
    return places


def _callbacks(config: Namespace, run: str) -> Iterator[tuple[Namespace, str]]:
    callbacks = config["trainer"]["callbacks"] or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        place = CALLBACK_FOLDERS.get(callback["class_path"].rpartition(".")[2])
        if place:
            yield callback, str(Path(run) / place)


def _loggers(config: Namespace) -> Iterator[Namespace]:
    loggers = config["trainer"]["logger"]
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, Namespace):
            yield logger
