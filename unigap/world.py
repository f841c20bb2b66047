"""The one door through which a world enters: a set of prompts whose truth is known, with everything that follows.

A world is a folder of ``unigap/worlds`` with a module ``world`` that holds a `World` named ``WORLD``. Nothing else in
the package names one: ``data.prompts: NAME`` finds it by the name of its folder.
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
    """What a world offers.

    Attributes:
        splits: Names of its splits, which share no prompt.
        prompts: Prompts of a split, at most so many for each (category, difficulty); None takes all.
        external: Makes the ``Judge`` that knows the truth of every image.
        known_pairs: Makes ``KnownPairs``, images with true and false captions, from a split and with a seed.
        exam: Makes a ``ProbeSet`` from a split, of so many images, and with a seed.
        quiz: Makes a ``QuizSource`` of yes/no questions about images.
        classes: Its classes that configs name by the room they belong to, by the module of that room.
    """

    splits: Sequence[str]
    prompts: Callable[[str, int | None], list[Prompt]]
    # not typed: judges, pairs and quizzes stand on floors above this one
    external: Callable[[], Any]
    known_pairs: Callable[[str, int], Any]
    exam: Callable[[str, int, int], Any]
    quiz: Callable[[], Any]
    classes: Mapping[str, Sequence[type]] = field(default_factory=dict)


@functools.cache
def _modules() -> dict[str, str]:
    """The module of each world, by its name."""
    names = sorted(path.parent.name for path in WORLDS.glob("*/world.py"))
    return {name: f"unigap.worlds.{name}.world" for name in names}


def world_names() -> list[str]:
    """Return the names of the worlds there are."""
    return list(_modules())


def find_world(name: str) -> World | None:
    """Return the world of this name; None where there is none."""
    if name not in _modules():
        return None
    world: World = import_module(_modules()[name]).WORLD
    return world


def import_worlds() -> None:
    """Import every world, so that a command knows their classes by name and lists them in its help."""
    for name in world_names():
        find_world(name)


def class_of_worlds(room: str, name: str) -> Any:
    """Return a class that a world adds to a module: what the module's ``__getattr__`` (PEP 562) asks.

    Configs name such a class by its room, e.g. ``unigap.judges.OracleJudge``, and the room imports no world for it.

    Args:
        room: Name of the module.
        name: Name of the class.

    Raises:
        AttributeError: No world adds a class of that name.
    """
    # classes only: Python asks modules for names such as __path__ and for their submodules too
    for world in filter(None, map(find_world, world_names() if name[:1].isupper() else ())):
        for offered in world.classes.get(room, ()):
            if offered.__name__ == name:
                return offered
    raise AttributeError(f"module {room!r} has no attribute {name!r}")
