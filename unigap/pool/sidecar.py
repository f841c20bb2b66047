"""Numbers about a pool's candidates that come after their round, kept beside the rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.files.durable import MANIFEST, altered_files, digest, make_folder, seal, unseal, write_durable
from unigap.files.writer_lock import WriterLock
from unigap.pool.head import advance_head, lost_tables, read_head
from unigap.pool.layout import is_begun
from unigap.pool.tables import number_schema, number_table, parquet_bytes, read_parquet


class Sidecar:
    """An append-only folder of numbers by candidate id, one table for each addition under one manifest.

    Each number belongs to a key: the reference model whose log-likelihood it is, or the judge whose log-odds.

    Args:
        pool: Folder of the pool.
        name: Name of the folder inside it.
        noun: What a number is called in messages, e.g. ``"reference"``.
        value: Name of its column, e.g. ``"logp"``.
        owners: What the manifest calls the keys, e.g. ``"models"``.
    """

    def __init__(self, pool: Path, name: str, noun: str, value: str, owners: str) -> None:
        self.pool, self.folder, self.noun, self.value, self.owners = pool, pool / name, noun, value, owners

    @property
    def begun(self) -> bool:
        """Whether anything is in it; a kill before its first manifest leaves nothing."""
        return is_begun(self.folder)

    def create(self) -> None:
        """Begin an empty folder; one that is begun stays as it is.

        Raises:
            ValueError: It is no folder, or another process is writing it.
            OSError: The folder cannot be written.
        """
        if not self.begun:
            make_folder(self.folder)
            with WriterLock(self.folder):
                if not self.begun:  # another process may have begun it meanwhile
                    write_durable(self.folder / MANIFEST, seal({"files": {}, self.owners: {}}))

    def keys(self) -> list[str]:
        """Every key there is a number under, sorted.

        Raises:
            ValueError: The manifest is missing, damaged or older than the pool's head.
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
            table = read_parquet(self.folder / name, number_schema(self.value))
            numbers.update(zip(table["candidate_id"].to_pylist(), table[self.value].to_pylist(), strict=True))
        return numbers

    def add(self, key: str, numbers: Mapping[str, float]) -> None:
        """Store numbers; the manifest comes last, so all of them are stored or none.

        Raises:
            ValueError: A value is not finite, another one is stored for the same candidate, or another process is
                writing the folder and does not come to an end.
            OSError: The folder cannot be written; what was stored before is safe.
        """
        with WriterLock(self.folder):
            self._add(key, numbers)
        advance_head(self.pool)

    def _add(self, key: str, numbers: Mapping[str, float]) -> None:
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
        head = read_head(self.pool)  # before the manifest, which is written first
        index = unseal(self.folder / MANIFEST).content
        for fault in index_faults(self.folder, index, self.owners):
            raise ValueError(fault)
        for fault in lost_tables(self.pool, head, self.folder.name, index["files"]) if head else []:
            raise ValueError(fault)
        return index


def index_faults(folder: Path, index: Mapping[str, Any], owners: str) -> list[str]:
    """Say so in one line if a manifest does not name the owner of each of its tables."""
    files, names = index.get("files"), index.get(owners)
    if isinstance(files, dict) and isinstance(names, dict) and files.keys() == names.keys():
        return []
    return [f"{folder / MANIFEST} does not name the owner of each table; restore it from a backup"]
