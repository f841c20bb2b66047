"""Writing a round of the pool, shard by shard, so that a kill at any point loses no shard."""

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
"""Columns that tell the candidates of a round apart."""
Key = tuple[str, int]


def plain_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it reads back from disk: tuples are lists, keys are text.

    Raises:
        ValueError: A value is not plain JSON; the key is named.
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
    """What is wrong with a shard, whose name carries the digest of its bytes; None if nothing."""
    try:
        intact = path.name.endswith(f"-{file_digest(path)}.parquet")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    return None if intact else f"{path} is damaged: its sha256 is not the one in its name"


class RoundWriter:
    """Writes one round; made by ``Pool.writer``, one for each rank.

    Shards lie in ``round-NNNNN.partial`` and are safe as soon as ``write`` returns. ``commit`` merges them into tables
    that depend on the records alone, not on ranks, shards or kills, and renames the round into place.

    Args:
        pool: Folder of the pool.
        round: Number of the round.
        recipe: How the round is drawn, as ``plain_recipe`` returns it.
        previous: Digest of the manifest of the round before, or of ``pool.json``; the manifests form a chain.
        lead: Whether this process keeps others than its run's from writing the round, until it is committed.

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
        """Prompt id and index of each candidate that is safe in a shard, those of other ranks included.

        It grows while other ranks write, so split the prompts among the ranks first and skip what is done after.

        Raises:
            ValueError: A shard is damaged; the file is named.
        """
        for path in self._shards():
            if path.name not in self._read:
                self._done.update(_keys(_read_shard(path, list(KEY))))
                self._read.add(path.name)
        return self._done

    def verdicts(self, judge: str) -> dict[Key, float]:
        """Log-odds of yes that a judge gave to the candidates that are safe in shards, by prompt id and index.

        Raises:
            ValueError: A shard is damaged; the file is named.
        """
        found: dict[Key, float] = {}
        for path in self._shards():
            table = _read_shard(path, [*KEY, "judgments"])
            rows = zip(_keys(table), table["judgments"].to_pylist(), strict=True)
            found.update((key, one["logit"]) for key, said in rows for one in said if one["judge"] == judge)
        return found

    def write(self, candidates: Sequence[Candidate], judgments: Sequence[Judgment], rank: int = 0) -> None:
        """Add one shard; it is durable when this returns, and either all there or not at all.

        Without candidates nothing is written.

        Args:
            candidates: What was drawn and is not yet ``done``.
            judgments: What was said of these candidates, by any number of judges.
            rank: The writing process.

        Raises:
            ValueError: A record is malformed, comes twice, belongs to another round or names an unknown candidate.
            OSError: The disk is full or the folder read-only; the shards before this one are safe.
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
        """Merge the shards, write the manifest last and rename the round into place.

        Rank 0 calls it once, after every rank has written. A kill before the rename leaves the shards as they were.

        Args:
            prompts: Every prompt asked in this round, in order, also those for which nothing was kept.

        Raises:
            ValueError: A shard is damaged, a candidate was written twice or belongs to no asked prompt.
            OSError: The disk is full or the folder read-only; the shards are safe.
        """
        self._refuse_if_committed()
        asked = prompt_table(prompts)
        candidates, judgments = merge_shards([_read_shard(path) for path in self._shards()])
        self._check_drawn(candidates, prompts)
        contents = {
            CANDIDATES_FILE: parquet_bytes(candidates),
            JUDGMENTS_FILE: parquet_bytes(judgments),
            PROMPTS_FILE: parquet_bytes(asked),
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
        # From here on the round is safe; what an earlier kill kept from being tidied away goes too.
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

    def _check_drawn(self, candidates: pa.Table, prompts: Sequence[Prompt]) -> None:
        asked = {prompt.id: prompt for prompt in prompts}
        distinct = candidates.select(PROMPTS.names).group_by(PROMPTS.names, use_threads=False).aggregate([])
        for prompt in prompts_of(distinct):
            if asked.get(prompt.id) != prompt:
                fault = "is not among the prompts asked" if prompt.id not in asked else "differs from the one asked"
                raise ValueError(
                    f"prompt {prompt.id!r} in the shards of round {self._round} {fault}; use the prompt set the round "
                    f"was begun with, or delete the folder {self._partial} to draw it anew"
                )
        for (prompt_id, index), after in pairwise(_keys(candidates)):
            if (prompt_id, index) == after:
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
