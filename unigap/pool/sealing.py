"""Merge the shards of a round into its tables; memory does not grow with the round."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigap.files.durable import durable_file
from unigap.pool.latents import merge_latents
from unigap.pool.layout import CANDIDATES_FILE, JUDGMENTS_FILE, LATENTS_FILE
from unigap.pool.parquet import FORMAT, read_parquet
from unigap.pool.schemas import JUDGMENTS, PROMPTS, candidate_schema, shard_schema
from unigap.pool.tables import merge_shards, prompts_of
from unigap.records import DrawingFormat, Prompt

MOST_ROWS, MOST_VALUES = 2**16, 2**25
"""Maximum rows and codes of a row group. A round within them is one row group. Offsets of lists have 32 bits."""


@dataclass(frozen=True)
class ShardKeys:
    """What identifies the candidates of a round, over all its shards, in the order of the round's tables.

    Attributes:
        shard_N: Number of the shard that holds each candidate.
        row_N: Its row in the shard.
        rank_N: Place of its prompt among the prompts sorted by id.
        index_N: Its index.
    """

    shard_N: np.ndarray
    row_N: np.ndarray
    rank_N: np.ndarray
    index_N: np.ndarray


class Sealing:
    """The shards of a round, to be merged.

    Args:
        partial: Folder of the shards.
        shards: Their names.
        prompts: All prompts of the round.
        round: Number of the round.
        format: Format of the pool's drawings.
        behaviour: Whether the shards hold the log-likelihoods under the sampling recipe.

    Raises:
        ValueError: A candidate is in two shards, or its prompt is not in ``prompts``.
    """

    def __init__(
        self,
        partial: Path,
        shards: Sequence[str],
        prompts: Sequence[Prompt],
        round: int,
        format: DrawingFormat | None,
        behaviour: bool = False,
    ) -> None:
        self._partial, self._shards, self._format, self._behaviour = partial, list(shards), format, behaviour
        self._round, self._schema = round, shard_schema(format, behaviour)
        self._prompts = sorted(prompts, key=lambda prompt: prompt.id.encode())
        self._ranks = {prompt.id: rank for rank, prompt in enumerate(self._prompts)}
        self._values = 0
        self._keys = self._read_keys()
        self._refuse_duplicates()

    def write(self, folder: Path) -> list[str]:
        """Write the tables of candidates and judgments, and the latents if the pool has them.

        Returns:
            The names of the files.

        Raises:
            ValueError: A shard is damaged, or a prompt in it differs from the one asked.
            OSError: The disk is full or the folder read-only.
        """
        with (
            durable_file(folder / CANDIDATES_FILE) as rows,
            durable_file(folder / JUDGMENTS_FILE) as verdicts,
            pq.ParquetWriter(rows, candidate_schema(self._format, self._behaviour), **FORMAT) as candidate_file,
            pq.ParquetWriter(verdicts, JUDGMENTS, **FORMAT) as judgment_file,
        ):
            for parts in self._groups():
                candidates, judgments = merge_shards(parts, self._format, self._behaviour)
                self._check_prompts(candidates)
                candidate_file.write_table(candidates.combine_chunks())
                judgment_file.write_table(judgments.combine_chunks())
        if not (self._format and self._format.is_latent):
            return [CANDIDATES_FILE, JUDGMENTS_FILE]
        names = [self._latents_of(number) for number in range(len(self._shards))]
        with durable_file(folder / LATENTS_FILE) as file:
            merge_latents(file, self._partial, names, self._keys.shard_N, self._keys.row_N, self._format)
        return [CANDIDATES_FILE, JUDGMENTS_FILE, LATENTS_FILE]

    def _read_keys(self) -> ShardKeys:
        shards, ranks, indices = [], [], []
        for name in self._shards:
            keys = read_parquet(self._partial / name, self._schema, ["prompt_id", "index"])
            self._values += _values(self._partial / name)
            shards.append(len(keys))
            ranks.append(np.array([self._rank(id) for id in keys["prompt_id"].to_pylist()], np.int32))
            indices.append(keys["index"].to_numpy())
        rank_N = np.concatenate([np.empty(0, np.int32), *ranks])
        index_N = np.concatenate([np.empty(0, np.int64), *indices])
        order = np.lexsort((index_N, rank_N))
        shard_N = np.repeat(np.arange(len(shards), dtype=np.int32), shards)
        row_N = np.concatenate([np.empty(0, np.int32), *(np.arange(rows, dtype=np.int32) for rows in shards)])
        return ShardKeys(shard_N[order], row_N[order], rank_N[order], index_N[order])

    def _rank(self, id: str) -> int:
        if id not in self._ranks:
            raise ValueError(self._wrong_prompt(id, "is not among the prompts asked"))
        return self._ranks[id]

    def _refuse_duplicates(self) -> None:
        keys = self._keys
        same = np.flatnonzero((np.diff(keys.rank_N) == 0) & (np.diff(keys.index_N) == 0))
        for row in same[:1]:
            prompt = self._prompts[keys.rank_N[row]]
            raise ValueError(
                f"candidate {keys.index_N[row]} of prompt {prompt.id!r} lies in two shards of round {self._round}; "
                f"give each prompt to one rank only, and delete the folder {self._partial} to draw the round anew"
            )

    def _groups(self) -> Iterator[list[pa.Table]]:
        """Yield the parts of each row group, in the order of the round."""
        count = len(self._keys.rank_N)
        per_row = max(1, math.ceil(self._values / max(1, count)))
        rows = max(1, min(MOST_ROWS, MOST_VALUES // per_row))
        if count <= rows:
            yield [self._read(number) for number in range(len(self._shards))]
            return
        # each candidate's row group, by shard and row
        group_N = (np.arange(count) // rows).astype(np.int32)
        by_shard = np.lexsort((self._keys.row_N, self._keys.shard_N))
        group_N = group_N[by_shard]
        with tempfile.TemporaryFile(dir=self._partial) as spool:
            places = self._spool(spool.fileno(), group_N, rows)
            reader = pa.ipc.open_file(pa.PythonFile(spool, "r"))
            for group in range(int(group_N.max()) + 1):
                yield [pa.Table.from_batches([reader.get_batch(number)]) for number in places[group]]

    def _spool(self, descriptor: int, group_N: np.ndarray, rows: int) -> dict[int, list[int]]:
        """Write the shards in blocks that are divided by row group; return the numbers of each row group's batches."""
        places: dict[int, list[int]] = {}
        count = first = 0
        with open(descriptor, "wb", closefd=False) as sink, pa.ipc.new_file(sink, self._schema) as writer:
            for block in self._blocks(rows):
                table = pa.concat_tables([self._schema.empty_table(), *block], promote_options="default")
                group_of_row = group_N[first : first + len(table)]
                order = np.argsort(group_of_row, kind="stable")
                table, group_of_row = table.combine_chunks().take(order), group_of_row[order]
                starts = np.flatnonzero(np.diff(group_of_row, prepend=-1))
                for start, stop in zip(starts, [*starts[1:], len(table)], strict=True):
                    for batch in table.slice(start, stop - start).combine_chunks().to_batches():
                        writer.write_batch(batch)
                        places.setdefault(int(group_of_row[start]), []).append(count)
                        count += 1
                first += len(table)
        return places

    def _blocks(self, rows: int) -> Iterator[list[pa.Table]]:
        """Yield the shards in blocks of about one row group."""
        block: list[pa.Table] = []
        for number in range(len(self._shards)):
            block.append(self._read(number))
            if sum(map(len, block)) >= rows:
                yield block
                block = []
        if block:
            yield block

    def _read(self, number: int) -> pa.Table:
        return read_parquet(self._partial / self._shards[number], self._schema)

    def _latents_of(self, number: int) -> str:
        names = read_parquet(self._partial / self._shards[number], self._schema, ["latents"])
        return str(names["latents"][0])

    def _check_prompts(self, candidates: pa.Table) -> None:
        distinct = candidates.select(PROMPTS.names).group_by(PROMPTS.names, use_threads=False).aggregate([])
        for prompt in prompts_of(distinct):
            if self._prompts[self._ranks[prompt.id]] != prompt:
                raise ValueError(self._wrong_prompt(prompt.id, "differs from the one asked"))

    def _wrong_prompt(self, id: str, fault: str) -> str:
        return (
            f"prompt {id!r} in the shards of round {self._round} {fault}; use the prompt set the round was begun with, "
            f"or delete the folder {self._partial} to draw it anew"
        )


def _values(path: Path) -> int:
    """Return the number of codes in a shard, from its footer."""
    metadata = pq.read_metadata(path)
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    return sum(int(column.num_values) for column in columns if column.path_in_schema.startswith("codes."))
