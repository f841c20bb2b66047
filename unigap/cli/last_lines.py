"""The last lines of ``fit``, ``validate`` and ``predict``: what was made, where it is, and the next command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from unigap.callbacks.run_checkpoint import LAST
from unigap.console.closing import close, command
from unigap.report.run_folder.fit_folder import SUMMARY
from unigap.report.run_folder.places import CHECKPOINTS, POOL


def close_fit(config: Namespace, measured: bool, improves: bool) -> None:
    """Print the last lines of ``fit``.

    Args:
        config: The resolved config of the verb.
        measured: Whether the run wrote a summary.
        improves: Whether the stage is one of self-improvement, with a pool.
    """
    if config["trainer"]["fast_dev_run"]:
        close({}, command("fit", *_configs(config)) + "  # fast_dev_run saved no checkpoint")
        return
    checkpoint = Path(config[CHECKPOINTS]) / LAST
    if not improves:
        out = config.get("model.init_args.out")
        made = {"checkpoint": checkpoint} | ({"model": out} if out else {})
        close(made, command("gap", "--checkpoint", out or "MODEL"))
        return
    made = {"pool": config[POOL], "checkpoint": checkpoint}
    if measured:
        folder = config["summary"]["folder"]
        close(made | {"summary": Path(folder) / SUMMARY}, command("report", folder))
        return
    why = "summary.folder is empty" if config["summary"]["folder"] == "" else "no summary.prompts are given"
    print(f"no figures on test prompts: {why}; the next command measures the trained model", file=sys.stderr)
    close(made, command("gap", "--checkpoint", checkpoint, *_prompts(config)))


def close_validate(config: Namespace) -> None:
    """Print the last lines of ``validate``."""
    made = {"figures": config["gap_out"]} if config["gap_out"] else {}
    checkpoint = config["ckpt_path"]
    if checkpoint:
        close(made, command("gap", "--checkpoint", checkpoint) + "  # the same on test prompts")
    else:
        close(made, command("fit", *_configs(config)))


def close_predict(config: Namespace) -> None:
    """Print the last lines of ``predict``."""
    pool = config[POOL]
    several = config.get("model.init_args.external") is not None
    close({"pool": pool}, command("judge", *(("agreement", pool) if several else ("export", pool))))


def _configs(config: Namespace) -> list[Any]:
    return [word for path in config.get("config") or [] for word in ("--config", path)]


def _prompts(config: Namespace) -> list[Any]:
    """The options of ``gap`` for the prompts that the run was evaluated on."""
    data = config["data"]["init_args"]
    source = data.get("eval_prompts") or data.get("prompts")
    return ["--prompts", source] if source else []
