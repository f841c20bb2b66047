"""Things that say by what they were made: a name and the constructor's arguments, as plain JSON."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from unigap.files.durable import file_digest

NO_MATTER = ("batch_size", "device")
"""Arguments that say how fast a result comes, not what it is."""


class Described(ABC):
    """Something whose constructor arguments decide what it does.

    Each argument is kept in an attribute of the same name, from which ``recipe`` reads it; an argument that names a
    file is kept as its ``Path``.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, e.g. ``"random"``; things of one name differ in their arguments only."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The name and what the constructor was given, as plain JSON; a file is its sha256.

        Raises:
            ValueError: An argument is not kept in an attribute of its name, or a file of it is missing.
        """
        recipe: dict[str, Any] = {"name": self.name}
        for argument in inspect.signature(type(self)).parameters:
            if argument in NO_MATTER:
                continue
            try:
                recipe[argument] = _plain(getattr(self, argument))
            except AttributeError as error:
                raise ValueError(
                    f"{type(self).__name__} must keep its argument {argument!r} in an attribute of that name: "
                    "what it decides is stored from there"
                ) from error
        return recipe


def _plain(value: Any) -> Any:
    if isinstance(value, Described):
        return value.recipe
    if isinstance(value, Path):
        if not value.is_file():
            raise ValueError(f"{str(value)!r}: no such file any more; put it back")
        return {"sha256": file_digest(value)}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
