"""``head.json`` of a pool: the rounds and tables that must exist. It detects deleted or rolled-back files.

A pool only grows, and ``head.json`` is written after the files it lists, so a pool may hold more than it lists. Pools
of earlier versions have no ``head.json`` until the next write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from unigap.files.durable import MANIFEST, seal, unseal, write_durable
from unigap.files.outputs import POOL_FILE
from unigap.files.typed_json import build
from unigap.files.writer_lock import WriterLock
from unigap.pool.layout import ANNOTATIONS, HEAD, REFERENCES, find_rounds, is_begun, round_folder


@dataclass(frozen=True)
class Head:
    """Content of a pool after its last write.

    Attributes:
        rounds: Number of committed rounds.
        sha256: Digest of the manifest of the last round, or of ``pool.json`` if there is no round.
        annotations: Names of the tables of annotations, sorted.
        references: Names of the tables of references, sorted.
    """

    rounds: int
    sha256: str
    annotations: list[str]
    references: list[str]

    def tables(self, sidecar: str) -> list[str]:
        """Return the names of the tables of ``annotations`` or ``references``."""
        return self.annotations if sidecar == ANNOTATIONS else self.references


def read_head(pool: Path) -> Head | None:
    """Read the head of a pool; return None if there is none.

    Raises:
        ValueError: It is damaged.
    """
    path = pool / HEAD
    if not path.exists():
        return None
    head: Head = build(Head, unseal(path).content, str(path))
    return head


def write_first_head(pool: Path, identity: str) -> None:
    """Write the head of a pool without rounds, given the digest of its ``pool.json``."""
    _write(pool, Head(0, identity, [], []))


def advance_head(pool: Path) -> None:
    """Update the head to the current content of the pool.

    Raises:
        ValueError: The pool lacks a file that its head lists.
        OSError: It cannot be written; the old head stays and is still valid.
    """
    with WriterLock(pool):
        old, new = read_head(pool), _present(pool)
        for fault in _faults(pool, old, new) if old else []:
            raise ValueError(fault)
        if new != old:
            _write(pool, new)


def lost_rounds(pool: Path, head: Head, rounds: int) -> list[str]:
    """Return one line if a pool has fewer rounds, counted from 0 without gaps, than its head lists; else no line."""
    if rounds >= head.rounds:
        return []
    return [
        f"{round_folder(pool, rounds)} is missing: {HEAD} names {head.rounds} rounds; restore it, or delete "
        f"{pool / HEAD} as well to go on with what is left"
    ]


def exchanged_round(pool: Path, head: Head, last: str) -> list[str]:
    """Return one line if ``last``, the digest of the last manifest that the head covers, differs; else no line."""
    if last == head.sha256:
        return []
    where = round_folder(pool, head.rounds - 1) / MANIFEST if head.rounds else pool / POOL_FILE
    return [
        f"{where} is not the one that {pool / HEAD} names: one of them is older or belongs to another pool; restore it "
        "from a backup"
    ]


def lost_tables(pool: Path, head: Head, sidecar: str, present: Collection[str]) -> list[str]:
    """Return one line if a sidecar lacks tables that the head lists; else no line."""
    lost = {*head.tables(sidecar)} - {*present}
    if not lost:
        return []
    return [
        f"{pool / sidecar / MANIFEST} is older than {HEAD}: {len(lost)} of its tables are gone; restore the folder, or "
        f"delete {pool / HEAD} as well to go on with what is left"
    ]


def _faults(pool: Path, head: Head, present: Head) -> list[str]:
    """What the head of a pool names and the pool does not hold, one line each."""
    lines = lost_rounds(pool, head, present.rounds)
    if present.rounds == head.rounds:
        lines += exchanged_round(pool, head, present.sha256)
    for sidecar in (ANNOTATIONS, REFERENCES):
        lines += lost_tables(pool, head, sidecar, present.tables(sidecar))
    return lines


def _present(pool: Path) -> Head:
    rounds = len(find_rounds(pool))
    last = round_folder(pool, rounds - 1) / MANIFEST if rounds else pool / POOL_FILE
    return Head(rounds, unseal(last).sha256, _tables(pool / ANNOTATIONS), _tables(pool / REFERENCES))


def _tables(sidecar: Path) -> list[str]:
    return sorted(unseal(sidecar / MANIFEST).content["files"]) if is_begun(sidecar) else []


def _write(pool: Path, head: Head) -> None:
    write_durable(pool / HEAD, seal(dataclasses.asdict(head)))
