"""Judgments that are added to a pool after its rounds were committed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from unigap.pool.head import lost_tables, read_head
from unigap.pool.layout import ANNOTATIONS
from unigap.pool.sidecar import Sidecar


class Annotations:
    """Judgments added to a pool later; the folder is created with the first.

    Args:
        pool: Folder of the pool.
    """

    def __init__(self, pool: Path) -> None:
        self._sidecar = Sidecar(pool, ANNOTATIONS, "annotation", "logit", "judges")

    @property
    def judges(self) -> list[str]:
        """Names of the judges with annotations, sorted.

        Raises:
            ValueError: The manifest is missing, damaged or older than the pool's head.
        """
        head = read_head(self._sidecar.pool)
        if self._sidecar.begun:
            return self._sidecar.keys()
        for fault in lost_tables(self._sidecar.pool, head, ANNOTATIONS, ()) if head else []:
            raise ValueError(fault)
        return []

    def tables(self, judge: str) -> list[str]:
        """Return the names of the tables of a judge, sorted.

        Raises:
            ValueError: The manifest is missing, damaged or older than the pool's head.
        """
        return self._sidecar.tables(judge) if judge in self.judges else []

    def read(self, names: Collection[str]) -> Iterator[tuple[str, float]]:
        """Yield candidate ids and log-odds of some tables.

        Raises:
            ValueError: A file is damaged; the message names it.
        """
        return self._sidecar.read(names)

    def add(self, judge: str, logits: Mapping[str, float], stored: Callable[[], Mapping[str, float]]) -> None:
        """Store log-odds of yes by candidate id, all of them or none; ``stored`` as in ``Sidecar.add``.

        Raises:
            ValueError: A value is not finite, or differs from the stored one of the same candidate.
            OSError: The folder cannot be written; earlier annotations are safe.
        """
        self._sidecar.create()
        self._sidecar.add(judge, logits, stored)
