"""Arms of an experiment: each is measured once, kept as JSON, and not measured again when the command is run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unigap.manifest import make_folder, write_durable

Result = dict[str, Any]
"""What an arm found: plain JSON."""


def run_arms(folder: Path, recipe: Mapping[str, Any], arms: Mapping[str, Callable[[], Result]]) -> dict[str, Result]:
    """Measures the arms that are not there yet, in order, with a progress bar.

    Args:
        folder: Where results are kept, one file an arm.
        recipe: Everything the results depend on, as plain JSON.
        arms: How to measure each, by name; one may use what earlier ones left in the folder.

    Returns:
        All results by name.

    Raises:
        ValueError: When the folder holds results of another recipe; the message says what differs.
    """
    make_folder(folder)
    _check_recipe(folder / "recipe.json", json.loads(json.dumps(recipe)))
    found: dict[str, Result] = {}
    with tqdm(arms.items(), unit="arm") as bar:
        for name, measure in bar:
            bar.set_description(name)
            path = folder / f"{name}.json"
            if not path.exists():
                write_durable(path, json.dumps(measure()).encode())
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _check_recipe(path: Path, recipe: dict[str, Any]) -> None:
    if not path.exists():
        write_durable(path, json.dumps(recipe, indent=1).encode())
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    different = sorted(name for name in kept.keys() | recipe.keys() if kept.get(name) != recipe.get(name))
    if different:
        raise ValueError(
            f"{path.parent} holds results of another experiment ({', '.join(different)} differ); "
            "delete the folder or name another with --work"
        )
