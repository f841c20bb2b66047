"""The chain of a pool's manifests: each holds the digest of the one before, so the last covers every byte of a pool."""

from __future__ import annotations

from pathlib import Path

from unigap.files.durable import MANIFEST, Sealed, altered_files, unseal
from unigap.files.outputs import POOL_FILE
from unigap.pool.head import Head, exchanged_round
from unigap.pool.identity import format_of
from unigap.pool.layout import HEAD, round_files, round_folder
from unigap.records import DrawingFormat


class Chain:
    """The manifests of a pool's committed rounds; each manifest, and the files it lists, is checked once.

    Args:
        folder: Folder of the pool.
        identity: Content of ``pool.json``; the first manifest holds its digest.
        head: Content of ``head.json``; None in pools of earlier versions.
    """

    def __init__(self, folder: Path, identity: Sealed, head: Head | None) -> None:
        self._folder, self._head = folder, head
        self._format = format_of(identity.content, folder / POOL_FILE)
        self._links = [identity]
        self._intact: set[int] = set()

    def digest(self, count: int) -> str:
        """Return a digest that covers the first ``count`` rounds: that of the manifest of the last one.

        Raises:
            ValueError: A manifest is damaged, does not follow the one before, or is not the one in ``head.json``.
        """
        for round in range(len(self._links) - 1, count):
            manifest = unseal(round_folder(self._folder, round) / MANIFEST)
            fault = chain_fault(self._folder, round, manifest, self._links[-1].sha256, self._format)
            if fault:
                raise ValueError(f"{fault}; restore it from a backup")
            self._links.append(manifest)
        if self._head and len(self._links) > self._head.rounds:
            for line in exchanged_round(self._folder, self._head, self._links[self._head.rounds].sha256):
                raise ValueError(line)
        return self._links[count].sha256

    def checked(self, round: int) -> Path:
        """Return the folder of a committed round, after a check of its files against the manifest.

        Raises:
            ValueError: A file is damaged or missing; the message names it.
        """
        self.digest(max(round + 1, self._head.rounds if self._head else 0))
        folder = round_folder(self._folder, round)
        if round not in self._intact:
            for damage in altered_files(folder, self._links[round + 1].content["files"]):
                raise ValueError(
                    f"{damage}; restore it, or delete round {round}, all later ones and {HEAD} to draw anew"
                )
            self._intact.add(round)
        return folder


def chain_fault(
    pool: Path, round: int, manifest: Sealed, previous: str | None, format: DrawingFormat | None
) -> str | None:
    """Return the fault of a round's manifest in the chain; None if there is none.

    Args:
        pool: Folder of the pool.
        round: Number of the round.
        manifest: Its manifest.
        previous: Digest of the manifest before, or of ``pool.json`` for round 0; None if unknown.
        format: Format of the pool's drawings.
    """
    files = manifest.content.get("files")
    expected = round_files(format)
    if not isinstance(files, dict) or files.keys() != expected:
        return f"{round_folder(pool, round) / MANIFEST} does not name the {len(expected)} files of a round"
    stated = manifest.content.get("previous")
    if manifest.content.get("round") == round and previous in (None, stated):
        return None
    before = round_folder(pool, round - 1) if round else pool / POOL_FILE
    return f"{round_folder(pool, round) / MANIFEST} does not follow {before}: one of them belongs to another pool"
