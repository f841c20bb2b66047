"""``unigap configs``: the configs that come with the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from unigap.console.closing import close, command
from unigap.console.shipped_configs import find_config, first_comment, shipped_configs
from unigap.files.durable import write_durable
from unigap.files.outputs import refuse_inside_pool


def configs_list() -> None:
    """List the shipped configs with the first line of each."""
    configs = shipped_configs()
    width = max(map(len, configs))
    for name, file in configs.items():
        print(f"{name:<{width}}  {first_comment(file)}")
    close({}, command("fit", "--config", "shapes/sft"))


def configs_show(name: str) -> None:
    """Print a shipped config.

    Args:
        name: Its name, e.g. shapes/sft.
    """
    sys.stdout.write(find_config(name).read_text(encoding="utf-8"))


def configs_copy(name: str, out: str = "") -> None:
    """Copy a shipped config, to change it.

    Args:
        name: Its name, e.g. shapes/sft.
        out: The file to write, which must not exist; empty takes the last part of the name, e.g. sft.yaml.

    Raises:
        ValueError: There is no such config, or the file exists.
    """
    config = find_config(name)
    target = Path(out or config.name)
    if os.path.lexists(target):
        raise ValueError(f"--out {str(target)!r} exists and stays as it is; give another name")
    refuse_inside_pool(target, "--out")
    write_durable(target, config.read_bytes())
    close({"config": target}, command("fit", "--config", target))
