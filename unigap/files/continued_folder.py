"""A folder that a command writes and the same command continues: a sealed recipe and a journal of records."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from unigap.files.durable import check_empty_folder, make_folder, render_json, seal, unseal, write_durable
from unigap.files.journal import recover_journal
from unigap.files.outputs import refuse_inside_pool


class ContinuedFolder:
    """The output of a command; the same command continues an unfinished one.

    Args:
        folder: A folder that is empty, does not exist, or holds an earlier output of the same command.
        option: The option that names it, for messages.

    Attributes:
        recipe_file: Name of the file with the recipe.
        journal_file: Name of the file with a line for each record.
        keys: Keys of a record; ``id`` is one of them.
        holds: What the folder holds, for messages, such as "results of".
    """

    recipe_file: ClassVar[str]
    journal_file: ClassVar[str]
    keys: ClassVar[Collection[str]]
    holds: ClassVar[str]

    def __init__(self, folder: str, option: str = "--out") -> None:
        self.folder, self._option = Path(folder), option
        refuse_inside_pool(self.folder, option)
        if not (self.folder / self.recipe_file).is_file():
            check_empty_folder(self.folder)
        self._records: dict[str, dict[str, Any]] = {}

    def begin(self, recipe: Mapping[str, Any]) -> None:
        """Begin the output, or continue it.

        Args:
            recipe: Everything that the records depend on, as plain JSON.

        Raises:
            ValueError: The folder holds the output of another recipe, or a damaged file.
        """
        path = self.folder / self.recipe_file
        if not path.exists():
            make_folder(self.folder)
            write_durable(path, seal(recipe))
            return
        stored = unseal(path).content
        changed = [
            key for key in sorted({*stored, *recipe}) if render_json(stored.get(key)) != render_json(recipe.get(key))
        ]
        if changed:
            raise ValueError(
                f"{self._option} {str(self.folder)!r} holds {self.holds} another {', '.join(changed)}; "
                "give another name"
            )
        records = recover_journal(self.folder / self.journal_file, self.keys)
        self._records = {record["id"]: record for record in records}
