"""The chain of a pool's manifests: each names the one before, so the last one covers every byte of all rounds."""

from __future__ import annotations

from pathlib import Path

from unigap.storage.manifest import MANIFEST, Sealed, altered_files, unseal
from unigap.storage.shards import POOL_FILE, round_folder


class Chain:
    """The manifests of a pool's committed rounds; each is read once, and so are the files it names.

    Args:
        folder: Folder of the pool.
        identity: What ``pool.json`` says, which the first manifest names.
    """

    def __init__(self, folder: Path, identity: Sealed) -> None:
        self._folder = folder
        self._links = [identity]
        self._intact: set[int] = set()

    def digest(self, count: int) -> str:
        """Digest that covers the first ``count`` rounds: that of the last of their manifests.

        Raises:
            ValueError: A manifest is damaged, or does not follow the one before.
        """
        for round in range(len(self._links) - 1, count):
            manifest = unseal(round_folder(self._folder, round) / MANIFEST)
            fault = chain_fault(self._folder, round, manifest, self._links[-1].sha256)
            if fault:
                raise ValueError(f"{fault}; restore it from a backup")
            self._links.append(manifest)
        return self._links[count].sha256

    def checked(self, round: int) -> Path:
        """Folder of a committed round, whose files are the very ones its manifest names.

        Raises:
            ValueError: A file is damaged or missing; it is named.
        """
        self.digest(round + 1)
        folder = round_folder(self._folder, round)
        if round not in self._intact:
            for damage in altered_files(folder, self._links[round + 1].content["files"]):
                raise ValueError(f"{damage}; restore it, or delete round {round} and all later ones to draw them anew")
            self._intact.add(round)
        return folder


def chain_fault(pool: Path, round: int, manifest: Sealed, previous: str) -> str | None:
    """What is wrong with the place of a round in the chain of manifests; None if nothing.

    Args:
        pool: Folder of the pool.
        round: Number of the round.
        manifest: Its manifest.
        previous: Digest of the manifest before, or of ``pool.json`` for round 0.
    """
    if (manifest.content["round"], manifest.content["previous"]) == (round, previous):
        return None
    before = round_folder(pool, round - 1) if round else pool / POOL_FILE
    return f"{round_folder(pool, round) / MANIFEST} does not follow {before}: one of them belongs to another pool"
