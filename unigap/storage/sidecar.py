"""Numbers about a pool's candidates that come after their round, kept beside the rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.storage.manifest import (
    MANIFEST,
    altered_files,
    digest,
    is_temporary,
    make_folder,
    seal,
    unseal,
    write_durable,
)
from unigap.storage.tables import number_table, parquet_bytes, read_parquet


class Sidecar:
    """An append-only folder of numbers by candidate id, one table for each addition under one manifest.

    Each number belongs to a key: the reference model whose log-likelihood it is, or the judge whose log-odds.

    Args:
        folder: Where they lie.
        noun: What a number is called in messages, e.g. ``"reference"``.
        value: Name of its column, e.g. ``"logp"``.
        owners: What the manifest calls the keys, e.g. ``"models"``.
    """

    def __init__(self, folder: Path, noun: str, value: str, owners: str) -> None:
        self.folder, self.noun, self.value, self.owners = folder, noun, value, owners

    @property
    def begun(self) -> bool:
        """Whether anything is in it; a kill before its first manifest leaves nothing."""
        return is_begun(self.folder)

    def create(self) -> None:
        """Begin an empty folder.

        Raises:
            OSError: The folder cannot be written.
        """
        make_folder(self.folder)
        write_durable(self.folder / MANIFEST, seal({"files": {}, self.owners: {}}))

    def keys(self) -> list[str]:
        """Every key there is a number under, sorted.

        Raises:
            ValueError: The manifest is missing or damaged.
        """
        return sorted(set(self._index()[self.owners].values()))

    def read(self, key: str) -> dict[str, float]:
        """What is stored under one key, by candidate id.

        Raises:
            ValueError: A file is damaged; the file is named.
        """
        index = self._index()
        numbers: dict[str, float] = {}
        for name in sorted(name for name, owner in index[self.owners].items() if owner == key):
            for damage in altered_files(self.folder, {name: index["files"][name]}):
                raise ValueError(f"{damage}; restore it from a backup")
            table = read_parquet(self.folder / name)
            numbers.update(zip(table["candidate_id"].to_pylist(), table[self.value].to_pylist(), strict=True))
        return numbers

    def add(self, key: str, numbers: Mapping[str, float]) -> None:
        """Store numbers; the manifest comes last, so all of them are stored or none.

        Raises:
            ValueError: A value is not finite, or another one is stored for the same candidate.
            OSError: The folder cannot be written; what was stored before is safe.
        """
        stored = self.read(key)
        for name, number in numbers.items():
            if name in stored and stored[name] != number:
                raise ValueError(
                    f"the {self.noun} of candidate {name!r} under {key!r} is {stored[name]!r} and is never changed, "
                    f"got {number!r}; store it under another name"
                )
        fresh = {name: number for name, number in numbers.items() if name not in stored}
        if not fresh:
            return
        data = parquet_bytes(number_table(fresh, self.value, self.noun))
        # Both parts are digests: equal tables of two keys stay apart, and no user's text becomes a path.
        name = f"{digest(key.encode())[:16]}-{digest(data)}.parquet"
        write_durable(self.folder / name, data)
        index = self._index()
        index["files"][name] = digest(data)
        index[self.owners][name] = key
        write_durable(self.folder / MANIFEST, seal(index))

    def _index(self) -> dict[str, Any]:
        return unseal(self.folder / MANIFEST).content


def is_begun(folder: Path) -> bool:
    """Whether there is more in a sidecar's folder than a killed write leaves."""
    return any(not is_temporary(path.name) for path in folder.glob("*"))
