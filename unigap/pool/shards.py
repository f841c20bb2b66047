"""Write a round of the pool shard by shard; a kill at any point loses no finished shard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import pairwise
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
from unigap.pool.layout import (
    CANDIDATES_FILE,
    JUDGMENTS_FILE,
    PROMPTS_FILE,
    RECIPE,
    find_rounds,
    round_folder,
)
from unigap.pool.tables import (
    PROMPTS,
    SHARD,
    merge_shards,
    parquet_bytes,
    prompt_table,
    prompts_of,
    read_parquet,
    shard_table,
)
from unigap.records import Candidate, Judgment, Prompt

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
    """Return the fault of a shard, whose name holds the digest of its bytes; None if it is intact."""
    try:
        intact = path.name.endswith(f"-{file_digest(path)}.parquet")
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

    Raises:
        ValueError: Another run writes the round, or a partial round was begun with another recipe or is damaged.
        OSError: The folder cannot be written.
    """

    def __init__(self, pool: Path, round: int, recipe: dict[str, Any], previous: str, lead: bool = True) -> None:
        self._pool = pool
        self._round = round
        self._previous = previous
        self._partial = round_folder(pool, round, ".partial")
        self._read: set[str] = set()
        self._done: set[Key] = set()
        self._recipe = recipe
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
                self._done.update(_keys(_read_shard(path, list(KEY))))
                self._read.add(path.name)
        return self._done

    def verdicts(self, judge: str) -> dict[Key, float]:
        """Return a judge's log-odds of yes for the candidates in the shards, by prompt id and index.

        Raises:
            ValueError: A shard is damaged; the message names it.
        """
        logits: dict[Key, float] = {}
        for path in self._shards():
            table = _read_shard(path, [*KEY, "judgments"])
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
        table = shard_table(candidates, judgments)
        if not candidates:
            return
        data = parquet_bytes(table)
        name = f"shard-{rank:05d}-{digest(data)}.parquet"
        write_durable(self._partial / name, data)
        self._done.update((candidate.prompt.id, candidate.index) for candidate in candidates)
        self._read.add(name)

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
        candidates, judgments = merge_shards([_read_shard(path) for path in self._shards()])
        self._check_candidates(candidates, prompts)
        contents = {
            CANDIDATES_FILE: parquet_bytes(candidates),
            JUDGMENTS_FILE: parquet_bytes(judgments),
            PROMPTS_FILE: parquet_bytes(table),
            RECIPE: seal(self._recipe),
        }
        digests = {name: digest(data) for name, data in contents.items()}
        contents[MANIFEST] = seal({"round": self._round, "previous": self._previous, "files": digests})
        sealing = round_folder(self._pool, self._round, ".sealing")
        shutil.rmtree(sealing, ignore_errors=True)
        make_folder(sealing)
        for name, data in contents.items():
            write_durable(sealing / name, data)
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

    def _check_candidates(self, candidates: pa.Table, prompts: Sequence[Prompt]) -> None:
        by_id = {prompt.id: prompt for prompt in prompts}
        distinct = candidates.select(PROMPTS.names).group_by(PROMPTS.names, use_threads=False).aggregate([])
        for prompt in prompts_of(distinct):
            if by_id.get(prompt.id) != prompt:
                fault = "is not among the prompts asked" if prompt.id not in by_id else "differs from the one asked"
                raise ValueError(
                    f"prompt {prompt.id!r} in the shards of round {self._round} {fault}; use the prompt set the round "
                    f"was begun with, or delete the folder {self._partial} to draw it anew"
                )
        for (prompt_id, index), following in pairwise(_keys(candidates)):
            if (prompt_id, index) == following:
                raise ValueError(
                    f"candidate {index} of prompt {prompt_id!r} lies in two shards of round {self._round}; give each "
                    f"prompt to one rank only, and delete the folder {self._partial} to draw the round anew"
                )


def _keys(table: pa.Table) -> list[Key]:
    return list(zip(*(table[name].to_pylist() for name in KEY), strict=True))


def _read_shard(path: Path, columns: list[str] | None = None) -> pa.Table:
    damage = shard_damage(path)
    if damage:
        raise ValueError(f"{damage}; delete this file and the prompts in it are drawn again")
    return read_parquet(path, SHARD, columns)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if key not in old or key not in new:
            yield f"{name!r} is {'new' if key in new else 'gone'}"
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            yield from _differences(old[key], new[key], f"{name}.")
        elif render_json(old[key]) != render_json(new[key]):
            yield f"{name!r} was {old[key]!r} and is now {new[key]!r}"
