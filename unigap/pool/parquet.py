"""Write and read the Parquet files of a pool: whole, or a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unigap.files.plain import check_plain
from unigap.pool.schemas import EARLIER, with_behaviour

FORMAT = {"compression": "zstd", "write_page_checksum": True}
ROWS_AT_ONCE = 8192
"""Rows of a table that are in memory when it is read in parts."""
MAX_ROWS, MAX_VALUES, MAX_BYTES, MAX_TEXT = 1_000_000, 16_000_000, 2**28, 2**28
"""Maximum decompressed size of a small file; larger files may decompress to more."""


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file with a checksum on every page; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, **FORMAT)
    return bytes(sink.getvalue())


def read_parquet(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file and check each page against its checksum.

    Args:
        path: The file.
        schema: Names and types of all its columns.
        columns: Names of the columns to read; None reads all.

    Returns:
        The table; of an earlier version, without the mass of judgments.

    Raises:
        ValueError: The file is missing or damaged, has other columns, or would decompress to far more than its size.
    """
    stored, size = _checked_schema(path, schema), path.stat().st_size
    with _damage_named(path), _open(path, schema) as file:
        table = file.read(columns=columns)
    _refuse_more_than(path, "bytes of text", _text_bytes(table), max(MAX_TEXT, 1000 * size))
    return table.cast(pa.schema([stored.field(name) for name in table.column_names]))


def stream_parquet(
    path: Path, schema: pa.Schema, columns: list[str], first: int = 0, rows: int = ROWS_AT_ONCE
) -> Iterator[tuple[int, pa.Table]]:
    """Read columns of a Parquet file in parts; memory does not grow with the file.

    Args:
        path: The file.
        schema: Names and types of all its columns.
        columns: Names of the columns to read.
        first: A row that the first part must hold; parts before it may be left out.
        rows: Rows of a part.

    Yields:
        Number of the first row of a part, and the part; texts are dictionaries.

    Raises:
        ValueError: As ``read_parquet``.
    """
    _checked_schema(path, schema)
    size = path.stat().st_size
    with _damage_named(path), _open(path, schema) as file:
        groups, start = list(range(file.num_row_groups)), 0
        while groups and start + file.metadata.row_group(groups[0]).num_rows <= first:
            start += file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(rows, groups, columns, use_threads=False):
            table = pa.Table.from_batches([batch])
            _refuse_more_than(path, "bytes of text", _text_bytes(table), max(MAX_TEXT, 1000 * size))
            yield start, table
            start += len(table)


def count_rows(path: Path, schema: pa.Schema) -> int:
    """Return the number of rows of a Parquet file.

    Raises:
        ValueError: As ``read_parquet``.
    """
    _checked_schema(path, schema)
    with _damage_named(path), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    texts = [field.name for field in schema if field.type == pa.string()]
    # read texts as dictionaries until their size is known: a small file can repeat a long text many times
    # with a buffer, a column is read page by page, not as a whole
    return pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts, buffer_size=2**20)


def _checked_schema(path: Path, schema: pa.Schema) -> pa.Schema:
    with _damage_named(path):
        check_plain(path)
        with pq.ParquetFile(path) as file:
            return _stored_schema(path, file, schema)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged: {reason}") from error


def _stored_schema(path: Path, file: pq.ParquetFile, schema: pa.Schema) -> pa.Schema:
    """Return the schema of a file, ``schema`` or a variant; refuse an implausible decompressed size."""
    found = file.schema_arrow
    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in found]
    accepted = [schema, *(earlier for current, earlier in EARLIER if current == schema)]
    if "seed" in schema.names:
        accepted.append(with_behaviour(schema))
    stored = next((known for known in accepted if (found.names, types) == (known.names, known.types)), None)
    if stored is None:
        raise ValueError(f"{path} has the columns {', '.join(found.names)[:80]!r} or other types; it is of no pool")
    size, meta = path.stat().st_size, file.metadata
    chunks = [meta.row_group(g).column(c) for g in range(meta.num_row_groups) for c in range(meta.num_columns)]
    # each row has a distinct seed or name, and an image code repeats at most a few hundred times in a row
    _refuse_more_than(path, "rows", meta.num_rows, max(MAX_ROWS, size))
    _refuse_more_than(path, "values", sum(chunk.num_values for chunk in chunks), max(MAX_VALUES, 600 * size))
    _refuse_more_than(path, "bytes", sum(c.total_uncompressed_size for c in chunks), max(MAX_BYTES, 100 * size))
    return stored


def _refuse_more_than(path: Path, unit: str, promised: int, most: int) -> None:
    if promised > most:
        size = path.stat().st_size
        raise ValueError(f"{path} promises {promised:,} {unit} in a file of {size:,} bytes, which no sound table does")


def _text_bytes(table: pa.Table) -> int:
    """Return the size in bytes of the dictionary columns when decoded to one text for each row."""
    chunks = [chunk for column in table.columns if pa.types.is_dictionary(column.type) for chunk in column.chunks]
    lengths = [pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in chunks]
    return sum(pc.sum(length.cast(pa.int64())).as_py() or 0 for length in lengths)
