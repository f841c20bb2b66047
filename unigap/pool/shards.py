"""Write a round of the pool shard by shard; a kill at any point loses no finished shard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pyarrow as pa

from unigap.files.durable import (
    MANIFEST,
    digest,
    file_digest,
    make_folder,
    rename_durable,
    render_json,
    seal,
    unseal,
    write_durable,
)
from unigap.files.writer_lock import WriterLock
from unigap.pool.head import advance_head
from unigap.pool.latents import latent_bytes
from unigap.pool.layout import BEHAVIOUR_KEY, PROMPTS_FILE, RECIPE, find_rounds, round_folder
from unigap.pool.parquet import parquet_bytes, read_parquet
from unigap.pool.schemas import shard_schema
from unigap.pool.sealing import Sealing
from unigap.pool.tables import latent_rows, prompt_table, shard_table
from unigap.records import Candidate, DrawingFormat, Judgment, Prompt

KEY = ("prompt_id", "index")
"""Columns that identify a candidate within a round."""
Key = tuple[str, int]


def plain_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as it is read back from disk: tuples become lists, keys become text.

    Raises:
        ValueError: A value is not plain JSON; the message names the key.
    """
    for key, value in recipe.items():
        try:
            render_json({key: value})
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"recipe key {key!r} cannot be stored: {error}; use numbers, text, lists and dicts"
            ) from None
    return dict(json.loads(render_json(dict(recipe))))


def shard_damage(path: Path) -> str | None:
    """Return the fault of a shard or of its latents; the name holds the digest of the bytes. None if it is intact."""
    try:
        intact = path.name.endswith(f"-{file_digest(path)}{path.suffix}")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    return None if intact else f"{path} is damaged: its sha256 is not the one in its name"


class RoundWriter:
    """Writer of one round; made by ``Pool.writer``, one for each rank.

    Shards are written to ``round-NNNNN.partial`` and are durable when ``write`` returns. ``commit`` merges them into
    tables that depend only on the records, not on ranks, shards or kills, and renames the folder.

    Args:
        pool: Folder of the pool.
        round: Number of the round.
        recipe: How the round is sampled, as ``plain_recipe`` returns it.
        previous: Digest of the manifest of the round before, or of ``pool.json``; the manifests form a chain.
        lead: Whether this process locks the round against other runs until it is committed.
        format: Format of the pool's drawings.

    Raises:
        ValueError: Another run writes the round, or a partial round was begun with another recipe or is damaged.
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        pool: Path,
        round: int,
        recipe: dict[str, Any],
        previous: str,
        lead: bool = True,
        format: DrawingFormat | None = None,
    ) -> None:
        self._pool = pool
        self._round = round
        self._previous = previous
        self._partial = round_folder(pool, round, ".partial")
        self._read: set[str] = set()
        self._done: set[Key] = set()
        self._intact: set[str] = set()
        self._recipe, self._format = recipe, format
        make_folder(self._partial)
        self._lock = WriterLock(self._partial, patience=0)
        if lead:
            self._lock.acquire()
        self._begin()
        self.done()

    def done(self) -> Set[Key]:
        """Return prompt id and index of each candidate in the shards of all ranks.

        The set grows while other ranks write: first split the prompts among the ranks, then skip those done.

        Raises:
            ValueError: A shard is damaged; the message names it.
        """
        for path in self._shards():
            if path.name not in self._read:
                self._done.update(_keys(self._read_shard(path, list(KEY))))
                self._read.add(path.name)
        return self._done

    def verdicts(self, judge: str) -> dict[Key, float]:
        """Return a judge's log-odds of yes for the candidates in the shards, by prompt id and index.

        Raises:
            ValueError: A shard is damaged; the message names it.
        """
        logits: dict[Key, float] = {}
        for path in self._shards():
            table = self._read_shard(path, [*KEY, "judgments"])
            rows = zip(_keys(table), table["judgments"].to_pylist(), strict=True)
            logits.update((key, row["logit"]) for key, judged in rows for row in judged if row["judge"] == judge)
        return logits

    def write(self, candidates: Sequence[Candidate], judgments: Sequence[Judgment], rank: int = 0) -> None:
        """Write one shard durably and atomically; without candidates, write nothing.

        Args:
            candidates: Sampled candidates that are not yet ``done``.
            judgments: Judgments on these candidates, of any number of judges.
            rank: Rank of the writing process.

        Raises:
            ValueError: A record is malformed, duplicated, of another round, or names an unknown candidate.
            OSError: The disk is full or the folder read-only; earlier shards are safe.
        """
        self._refuse_if_committed()
        for candidate in candidates:
            if candidate.round != self._round:
                raise ValueError(f"candidate {candidate.id!r} was written to round {self._round}; write it to its own")
            if (candidate.prompt.id, candidate.index) in self._done:
                raise ValueError(
                    f"candidate {candidate.id!r} is already in a shard of round {self._round}; skip those in done()"
                )
        latents = self._latents(candidates)
        place = f"latents-{rank:05d}-{digest(latents)}.npy" if latents else ""
        table = shard_table(candidates, judgments, self._format, place)
        if not candidates:
            return
        if latents:  # first: a shard without its latents would be damaged
            write_durable(self._partial / place, latents)
        data = parquet_bytes(table)
        name = f"shard-{rank:05d}-{digest(data)}.parquet"
        write_durable(self._partial / name, data)
        self._done.update((candidate.prompt.id, candidate.index) for candidate in candidates)
        self._read.add(name)
        self._intact.add(name)

    def commit(self, prompts: Sequence[Prompt]) -> None:
        """Merge the shards, write the manifest last, and rename the folder of the round.

        Call it once, on rank 0, after every rank has written. A kill before the rename leaves the shards unchanged.

        Args:
            prompts: All prompts of this round in order, including those without candidates.

        Raises:
            ValueError: A shard is damaged, a candidate was written twice, or its prompt is not in ``prompts``.
            OSError: The disk is full or the folder read-only; the shards are safe.
        """
        self._refuse_if_committed()
        table = prompt_table(prompts)
        shards = [path.name for path in self._shards()]
        self._intact.clear()  # check again what has been on disk for as long as the round took
        for name in shards:
            self._check_shard(self._partial / name)
        merged = Sealing(self._partial, shards, prompts, self._round, self._format, BEHAVIOUR_KEY in self._recipe)
        sealing = round_folder(self._pool, self._round, ".sealing")
        shutil.rmtree(sealing, ignore_errors=True)
        make_folder(sealing)
        names = [*merged.write(sealing), PROMPTS_FILE, RECIPE]
        write_durable(sealing / PROMPTS_FILE, parquet_bytes(table))
        write_durable(sealing / RECIPE, seal(self._recipe))
        digests = {name: file_digest(sealing / name) for name in names}
        manifest = {"round": self._round, "previous": self._previous, "files": digests}
        write_durable(sealing / MANIFEST, seal(manifest))
        rename_durable(sealing, round_folder(self._pool, self._round))
        # the round is safe now; also delete partial folders that an earlier kill left
        for number in find_rounds(self._pool, ".partial"):
            if number <= self._round:
                shutil.rmtree(round_folder(self._pool, number, ".partial"), ignore_errors=True)
        self._lock.release()
        advance_head(self._pool)

    def _begin(self) -> None:
        path = self._partial / RECIPE
        if not path.exists() and not self._shards():
            write_durable(path, seal(self._recipe))
            return
        try:
            begun = unseal(path).content
        except ValueError as error:
            raise ValueError(f"{error}; delete the folder {self._partial} to draw round {self._round} anew") from None
        for difference in _differences(begun, self._recipe):
            raise ValueError(
                f"round {self._round} was begun with another recipe: {difference}; "
                f"use the recipe it was begun with, or delete the folder {self._partial} to draw it anew"
            )

    def _shards(self) -> list[Path]:
        return sorted(self._partial.glob("shard-*.parquet"))

    def _refuse_if_committed(self) -> None:
        if round_folder(self._pool, self._round).exists():
            raise ValueError(f"round {self._round} of {self._pool} is committed; committed rounds are never changed")

    def _latents(self, candidates: Sequence[Candidate]) -> bytes:
        """Return the file of latents of a shard; empty if the drawings are in the table."""
        if not (self._format and self._format.is_latent and candidates):
            return b""
        return latent_bytes(latent_rows(candidates, self._format))

    def _read_shard(self, path: Path, columns: list[str]) -> pa.Table:
        self._check_shard(path)
        return read_parquet(path, shard_schema(self._format), columns)

    def _check_shard(self, path: Path) -> None:
        """Check a shard and its latents against the digests in their names, once for each process."""
        if path.name in self._intact:
            return
        for damage in filter(None, [shard_damage(path)]):
            raise ValueError(f"{damage}; delete this file and the prompts in it are drawn again")
        if self._format and self._format.is_latent:
            place = read_parquet(path, shard_schema(self._format), ["latents"])["latents"][0].as_py()
            for damage in filter(None, [shard_damage(self._partial / place)]):
                raise ValueError(f"{damage}; delete {path} and the prompts in it are drawn again")
        self._intact.add(path.name)


def _keys(table: pa.Table) -> list[Key]:
    return list(zip(*(table[name].to_pylist() for name in KEY), strict=True))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if key not in old or key not in new:
            yield f"{name!r} is {'new' if key in new else 'gone'}"
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            yield from _differences(old[key], new[key], f"{name}.")
        elif render_json(old[key]) != render_json(new[key]):
            yield f"{name!r} was {old[key]!r} and is now {new[key]!r}"
