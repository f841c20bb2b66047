"""What judges said of a pool's candidates after their rounds were committed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unigap.pool.head import lost_tables, read_head
from unigap.pool.layout import ANNOTATIONS
from unigap.pool.sidecar import Sidecar
from unigap.records import Judgment


class Annotations:
    """Late judgments of a pool; there is nothing on disk before the first.

    Args:
        pool: Folder of the pool.
    """

    def __init__(self, pool: Path) -> None:
        self._sidecar = Sidecar(pool, ANNOTATIONS, "annotation", "logit", "judges")

    @property
    def judges(self) -> list[str]:
        """Who said something, sorted.

        Raises:
            ValueError: The manifest is missing, damaged or older than the pool's head.
        """
        head = read_head(self._sidecar.pool)
        if self._sidecar.begun:
            return self._sidecar.keys()
        for fault in lost_tables(self._sidecar.pool, head, ANNOTATIONS, ()) if head else []:
            raise ValueError(fault)
        return []

    def read(self, judge: str | None) -> list[Judgment]:
        """What one judge said, or all of them.

        Raises:
            ValueError: A file is damaged; the file is named.
        """
        names = [name for name in self.judges if judge in (None, name)]
        return [Judgment(id, name, logit) for name in names for id, logit in self._sidecar.read(name).items()]

    def add(self, judge: str, logits: Mapping[str, float]) -> None:
        """Store log-odds of yes by candidate id; all of them or none.

        Raises:
            ValueError: A value is not finite, or another one is stored for the same candidate.
            OSError: The folder cannot be written; what was stored before is safe.
        """
        self._sidecar.create()
        self._sidecar.add(judge, logits)
