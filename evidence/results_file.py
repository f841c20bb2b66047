"""Keep all results of a page in one Parquet file that several processes can write."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from unigap.files.durable import make_folder, write_durable

Result = dict[str, Any]
"""Result of an arm: plain JSON."""

RECIPE = b"recipe"


@dataclass(frozen=True)
class ResultsFile:
    """The results of a page's arms: a row each, with the columns ``name`` and ``result`` (JSON text).

    The metadata of the file holds the recipe that all results share. Every change rewrites the whole file under a lock
    and renames it atomically, so a reader sees either the old file or the new one.

    Attributes:
        path: The file; it and its folder need not exist yet.
    """

    path: Path

    def begin(self, recipe: Mapping[str, Any]) -> dict[str, Result]:
        """Create the file, or check that it holds results of this recipe.

        Returns:
            The stored results by name.

        Raises:
            ValueError: It holds results of another recipe.
        """
        recipe = json.loads(json.dumps(recipe))
        make_folder(self.path.parent)
        with self._locked():
            if not self.path.exists():
                self._write(recipe, {})
                return {}
        kept = self.recipe()
        different = sorted(name for name in kept.keys() | recipe.keys() if kept.get(name) != recipe.get(name))
        if different:
            raise ValueError(
                f"{self.path} holds results of another experiment ({', '.join(different)} differ); "
                "delete it or name another folder with --out"
            )
        return self.results()

    def add(self, name: str, result: Result) -> None:
        """Store the result of an arm; replace an earlier one of that name."""
        text = json.dumps(result)
        with self._locked():
            table = _read(self.path)
            self._write(_recipe(table), _texts(table) | {name: text})

    def remove(self, name: str) -> None:
        """Remove the result of an arm, so that it is measured again."""
        with self._locked():
            table = _read(self.path)
            self._write(_recipe(table), {other: text for other, text in _texts(table).items() if other != name})

    def results(self) -> dict[str, Result]:
        """Return every result by name; an empty mapping if there is no file."""
        if not self.path.exists():
            return {}
        return {name: json.loads(text) for name, text in _texts(_read(self.path)).items()}

    def recipe(self) -> dict[str, Any]:
        """Return the recipe that all results share."""
        return _recipe(_read(self.path))

    def _write(self, recipe: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        names = sorted(texts)
        table = pa.table({"name": names, "result": pa.array([texts[name] for name in names], pa.string())})
        table = table.replace_schema_metadata({RECIPE: json.dumps(recipe, indent=1)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", compression_level=19, use_dictionary=False)
        write_durable(self.path, buffer.getvalue())

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))


def _read(path: Path) -> Any:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error}); restore it, or delete it") from error


def _recipe(table: Any) -> dict[str, Any]:
    return dict(json.loads(table.schema.metadata[RECIPE]))


def _texts(table: Any) -> dict[str, str]:
    columns = table.to_pydict()
    return dict(zip(columns["name"], columns["result"], strict=True))
