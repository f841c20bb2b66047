"""Worlds: prompt sets with known truth that bring along an external judge, probe sets and a quiz.

A world is a folder of ``unigap/worlds`` whose module ``world`` defines a `World` named ``WORLD``. No other module names
a world: ``data.prompts: NAME`` finds it by its folder name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from unigap.records import Prompt

WORLDS = Path(__file__).parent / "worlds"


@dataclass(frozen=True)
class World:
    """Prompts with known truth, and the judge and questions that go with them.

    Attributes:
        splits: Names of the splits; no two share a prompt.
        prompts: ``prompts(split, per_cell)`` returns the prompts of a split, at most ``per_cell`` for each
            (category, difficulty); None takes all.
        external: Make the ``Judge`` that knows the truth of every image.
        probe_source: ``probe_source(split, seed)`` makes a ``ProbeSource``; without a seed it follows the run's.
        quiz: Make a ``QuizSource``.
        pretraining: ``pretraining(model, lr, steps, seed)`` makes a ``LightningModule`` and a
            ``LightningDataModule`` that train a model on new batches of the world's pretraining data.
        classes: Classes that the world adds to modules of the package, by module name; configs name them there.
    """

    splits: Sequence[str]
    prompts: Callable[[str, int | None], list[Prompt]]
    # Any: judges, probe sources and quizzes live on floors above this one
    external: Callable[[], Any]
    probe_source: Callable[[str, int | None], Any]
    quiz: Callable[[], Any]
    pretraining: Callable[[Any, float, int, int], tuple[Any, Any]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@functools.cache
def _modules() -> dict[str, str]:
    """Return the module name of each world, by world name."""
    names = sorted(path.parent.name for path in WORLDS.glob("*/world.py"))
    return {name: f"unigap.worlds.{name}.world" for name in names}


def world_names() -> list[str]:
    """Return the names of all worlds, sorted."""
    return list(_modules())


def find_world(name: str) -> World | None:
    """Return the world of this name, or None."""
    if name not in _modules():
        return None
    world: World = import_module(_modules()[name]).WORLD
    return world


def import_worlds() -> None:
    """Import every world, so that the command line knows their classes by name and lists them in its help."""
    for world in filter(None, map(find_world, world_names())):
        for paths in world.classes.values():
            for path in paths:
                imported(path)


def imported(path: str) -> Any:
    """Return the class of a dotted path, e.g. ``unigap.worlds.shapes.judge.OracleJudge``."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def class_of_worlds(module: str, name: str) -> Any:
    """Return a class that a world adds to a module; called from the module's ``__getattr__`` (PEP 562).

    Configs can name such a class by that module, e.g. ``unigap.judges.OracleJudge``, although the module imports no
    world.

    Args:
        module: Name of the module.
        name: Name of the class.

    Raises:
        AttributeError: No world adds a class of that name.
    """
    # classes only: Python also looks up names such as __path__ and submodules this way
    for world in filter(None, map(find_world, world_names() if name[:1].isupper() else ())):
        for path in world.classes.get(module, ()):
            if path.rpartition(".")[2] == name:
                return imported(path)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
