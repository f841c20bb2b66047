"""Numbers by candidate id that are added to a pool after the rounds were committed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from unigap.files.durable import MANIFEST, altered_files, digest, make_folder, seal, unseal, write_durable
from unigap.files.writer_lock import WriterLock
from unigap.pool.head import advance_head, lost_tables, read_head
from unigap.pool.layout import is_begun
from unigap.pool.parquet import parquet_bytes, stream_parquet
from unigap.pool.tables import number_schema, number_table


class Sidecar:
    """Append-only folder of numbers by candidate id: one table for each addition, and one manifest.

    Each number has a key: the reference model of a log-likelihood, or the judge of log-odds.

    Args:
        pool: Folder of the pool.
        name: Name of the folder inside it.
        noun: Name of a number in messages, e.g. ``"reference"``.
        value: Name of the column, e.g. ``"logp"``.
        owners: Name of the table of keys in the manifest, e.g. ``"models"``.
    """

    def __init__(self, pool: Path, name: str, noun: str, value: str, owners: str) -> None:
        self.pool, self.folder, self.noun, self.value, self.owners = pool, pool / name, noun, value, owners

    @property
    def begun(self) -> bool:
        """Whether the folder has been created with its manifest."""
        return is_begun(self.folder)

    def create(self) -> None:
        """Create the folder with an empty manifest, if it has not been created.

        Raises:
            ValueError: It is not a folder, or another process is writing it.
            OSError: The folder cannot be written.
        """
        if not self.begun:
            make_folder(self.folder)
            with WriterLock(self.folder):
                if not self.begun:  # another process may have created it before the lock was granted
                    write_durable(self.folder / MANIFEST, seal({"files": {}, self.owners: {}}))

    def keys(self) -> list[str]:
        """Return every key with a number, sorted.

        Raises:
            ValueError: The manifest is missing, damaged or older than the pool's head.
        """
        return sorted(set(self._index()[self.owners].values()))

    def tables(self, key: str) -> list[str]:
        """Return the names of the tables of a key, sorted; a table never changes.

        Raises:
            ValueError: The manifest is missing, damaged or older than the pool's head.
        """
        return sorted(name for name, owner in self._index()[self.owners].items() if owner == key)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, float]]:
        """Yield candidate ids and numbers of some tables.

        Raises:
            ValueError: A file is damaged; the message names it.
        """
        files = self._index()["files"] if names else {}
        for name in sorted(names):
            for damage in altered_files(self.folder, {name: files[name]}):
                raise ValueError(f"{damage}; restore it from a backup")
            for _, part in stream_parquet(self.folder / name, number_schema(self.value), ["candidate_id", self.value]):
                yield from zip(part["candidate_id"].to_pylist(), part[self.value].to_pylist(), strict=True)

    def add(self, key: str, numbers: Mapping[str, float], stored: Callable[[], Mapping[str, float]]) -> None:
        """Store numbers, all of them or none: the manifest is written last.

        Args:
            key: Their key.
            numbers: Numbers by candidate id.
            stored: Returns the numbers of the key that are stored; called while no other process can write.

        Raises:
            ValueError: A value is not finite or differs from the stored one of the same candidate, or another process
                keeps writing the folder.
            OSError: The folder cannot be written; earlier numbers are safe.
        """
        with WriterLock(self.folder):
            self._add(key, numbers, stored())
        advance_head(self.pool)

    def _add(self, key: str, numbers: Mapping[str, float], stored: Mapping[str, float]) -> None:
        known = {name: stored.get(name) for name in numbers}
        for name, number in numbers.items():
            if known[name] not in (None, number):
                raise ValueError(
                    f"the {self.noun} of candidate {name!r} under {key!r} is {known[name]!r} and is never changed, "
                    f"got {number!r}; store it under another name"
                )
        fresh = {name: number for name, number in numbers.items() if known[name] is None}
        if not fresh:
            return
        data = parquet_bytes(number_table(fresh, self.value, self.noun))
        # digests of key and data: equal tables of two keys get two files, and no user's text becomes a path
        name = f"{digest(key.encode())[:16]}-{digest(data)}.parquet"
        write_durable(self.folder / name, data)
        index = self._index()
        index["files"][name] = digest(data)
        index[self.owners][name] = key
        write_durable(self.folder / MANIFEST, seal(index))

    def _index(self) -> dict[str, Any]:
        head = read_head(self.pool)  # read before the manifest, because it is written after the manifest
        index = unseal(self.folder / MANIFEST).content
        for fault in index_faults(self.folder, index, self.owners):
            raise ValueError(fault)
        for fault in lost_tables(self.pool, head, self.folder.name, index["files"]) if head else []:
            raise ValueError(fault)
        return index


def index_faults(folder: Path, index: Mapping[str, Any], owners: str) -> list[str]:
    """Return one line if a manifest does not name the owner of each table; else no line."""
    files, names = index.get("files"), index.get(owners)
    if isinstance(files, dict) and isinstance(names, dict) and files.keys() == names.keys():
        return []
    return [f"{folder / MANIFEST} does not name the owner of each table; restore it from a backup"]
