"""Objects that record their own recipe: a name and the constructor's arguments, as plain JSON."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from unigap.files.durable import file_digest


class Described(ABC):
    """Base of objects that are fully described by a name and their constructor arguments.

    ``recipe`` reads each argument from an attribute of the same name; keep an argument that names a file as a ``Path``.
    """

    not_in_recipe: ClassVar[tuple[str, ...]] = ("batch_size", "device")
    """Arguments that change the speed of a result or where it comes from, not the result."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, e.g. ``"random"``; objects of one name differ in their arguments only."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The name and the constructor's arguments, as plain JSON; a file is recorded by its sha256.

        Raises:
            ValueError: An argument is not kept in an attribute of its name, or its file is missing.
        """
        recipe: dict[str, Any] = {"name": self.name}
        for argument in inspect.signature(type(self)).parameters:
            if argument in self.not_in_recipe:
                continue
            try:
                recipe[argument] = _plain(getattr(self, argument))
            except AttributeError as error:
                raise ValueError(
                    f"{type(self).__name__} must keep its argument {argument!r} in an attribute of that name: "
                    "the pool stores it from there"
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
