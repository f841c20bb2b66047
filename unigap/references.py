"""Log-likelihoods of a pool's candidates under reference models, kept beside the rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.manifest import MANIFEST, altered_files, digest, make_folder, seal, unseal, write_durable
from unigap.tables import parquet_bytes, read_parquet, reference_table


class References:
    """An append-only folder of reference log-likelihoods, one table for each addition under one manifest.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Begin an empty folder.

        Raises:
            OSError: The folder cannot be written.
        """
        make_folder(self.folder)
        write_durable(self.folder / MANIFEST, seal({"files": {}, "models": {}}))

    def read(self, model_key: str) -> dict[str, float]:
        """What is stored for one reference model, by candidate id.

        Raises:
            ValueError: A file is damaged; the file is named.
        """
        index = self._index()
        logps: dict[str, float] = {}
        for name in sorted(name for name, key in index["models"].items() if key == model_key):
            for damage in altered_files(self.folder, {name: index["files"][name]}):
                raise ValueError(f"{damage}; restore it from a backup")
            table = read_parquet(self.folder / name)
            logps.update(zip(table["candidate_id"].to_pylist(), table["logp"].to_pylist(), strict=True))
        return logps

    def add(self, model_key: str, logps: Mapping[str, float]) -> None:
        """Store log-likelihoods; the manifest comes last, so all of them are stored or none.

        Raises:
            ValueError: A value is not finite, or another one is stored for the same candidate.
            OSError: The folder cannot be written; what was stored before is safe.
        """
        stored = self.read(model_key)
        for name, logp in logps.items():
            if name in stored and stored[name] != logp:
                raise ValueError(
                    f"the reference of candidate {name!r} under {model_key!r} is {stored[name]!r} and is never "
                    f"changed, got {logp!r}; use another model_key"
                )
        fresh = {name: logp for name, logp in logps.items() if name not in stored}
        if not fresh:
            return
        data = parquet_bytes(reference_table(fresh))
        # Both parts are digests: equal tables of two models stay apart, and no user's text becomes a path.
        name = f"{digest(model_key.encode())[:16]}-{digest(data)}.parquet"
        write_durable(self.folder / name, data)
        index = self._index()
        index["files"][name] = digest(data)
        index["models"][name] = model_key
        write_durable(self.folder / MANIFEST, seal(index))

    def _index(self) -> dict[str, Any]:
        return unseal(self.folder / MANIFEST).content
