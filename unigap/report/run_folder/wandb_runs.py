"""Set up Weights & Biases runs: a group for each stage, the whole config, offline mode without a network."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from unigap.files.durable import make_folder, write_durable

PROJECT = "unigap"
CONFIG_FILE = "unigap.yaml"
"""File name of the resolved config; ``config.yaml`` belongs to W&B."""
PATIENCE = 5.0
"""Seconds to wait for the server's first answer."""


def arrange_runs(config: Namespace) -> None:
    """Set missing groups and projects of a run's W&B loggers, and switch to offline mode without an answer.

    Args:
        config: The resolved config of a sub-command; it is changed.
    """
    loggers = list(_wandb_loggers(config))
    if not loggers:
        return
    import wandb

    for logger in loggers:
        group = config["model"]["class_path"].rpartition(".")[2]
        # dict_kwargs win over init_args
        if logger["init_args"].get("group") is None:
            logger["dict_kwargs"] = {"group": group, **(logger.get("dict_kwargs") or {})}
        # a sweep has its own project
        if logger["init_args"].get("project") is None and not {"WANDB_PROJECT", "WANDB_SWEEP_ID"} & os.environ.keys():
            logger["init_args"]["project"] = PROJECT
    settings = wandb.setup().settings
    if settings.mode == "online" and not _answers(settings.base_url):
        wandb.setup(settings=wandb.Settings(mode="offline"))
        print("warning: no answer from W&B; the run is kept offline, to be uploaded with wandb sync", file=sys.stderr)


def _wandb_loggers(config: Namespace) -> Iterator[Namespace]:
    loggers = config["trainer"]["logger"]
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, Namespace) and logger["class_path"].endswith(".WandbLogger"):
            yield logger


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def tell_config(run: Any, config: str) -> None:
    """Store a resolved config as the config of a W&B run, and as a file for ``unigap fit --config``.

    Args:
        run: The W&B run.
        config: The config as YAML.
    """
    run.config.update(yaml.safe_load(config), allow_val_change=True)
    path = Path(run.dir) / CONFIG_FILE
    make_folder(path.parent)
    write_durable(path, config.encode())
    run.save(str(path), base_path=run.dir, policy="now")


def finish_run(failed: bool) -> None:
    """Finish the W&B run of this process, if any, and print the command that uploads an offline run."""
    import wandb

    run = wandb.run
    if run is None:
        return
    offline, folder = run.offline, run.settings.sync_dir
    run.finish(int(failed))
    if offline:
        print(f"W&B: the run is offline; upload it with: wandb sync {folder}")
