"""Convert records to Parquet tables and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unigap.files.plain import check_plain
from unigap.records import Candidate, Judgment, Prompt

PROMPTS = pa.schema([(name, pa.string()) for name in ("prompt_id", "text", "category", "difficulty", "split", "truth")])
CANDIDATES = pa.schema(
    [
        *PROMPTS,
        ("round", pa.int64()),
        ("index", pa.int64()),
        ("seed", pa.int64()),
        ("codes", pa.list_(pa.int32())),
        ("logp", pa.float64()),
    ]
)
JUDGMENTS = pa.schema(
    [("candidate_id", pa.string()), ("judge", pa.string()), ("logit", pa.float64()), ("mass", pa.float32())]
)
# one file, so that a candidate and its judgments become durable at the same time
SHARD = pa.schema([*CANDIDATES, ("judgments", pa.list_(pa.struct(JUDGMENTS)))])
_MASSLESS = JUDGMENTS.remove(JUDGMENTS.get_field_index("mass"))
EARLIER = ((JUDGMENTS, _MASSLESS), (SHARD, pa.schema([*CANDIDATES, ("judgments", pa.list_(pa.struct(_MASSLESS)))])))
"""Columns of tables written by earlier versions, which did not store the mass."""
MAX_ROWS, MAX_VALUES, MAX_BYTES, MAX_TEXT = 1_000_000, 16_000_000, 2**28, 2**28
"""Maximum decompressed size of a small file; larger files may decompress to more."""


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file with a checksum on every page; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
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
    texts = [field.name for field in schema if field.type == pa.string()]
    try:
        check_plain(path)
        with pq.ParquetFile(path) as file:
            stored = _stored_schema(path, file, schema)
        # read texts as dictionaries until their size is known: a small file can repeat a long text many times
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts) as file:
            table = file.read(columns=columns)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged: {reason}") from error
    _refuse_more_than(path, "bytes of text", _text_bytes(table), max(MAX_TEXT, 1000 * path.stat().st_size))
    return table.cast(pa.schema([stored.field(name) for name in table.column_names]))


def _stored_schema(path: Path, file: pq.ParquetFile, schema: pa.Schema) -> pa.Schema:
    """Return the schema of a file, ``schema`` or its earlier version; refuse an implausible decompressed size."""
    found = file.schema_arrow
    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in found]
    accepted = [schema, *(earlier for current, earlier in EARLIER if current == schema)]
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


def prompt_table(prompts: Sequence[Prompt]) -> pa.Table:
    """Convert prompts to a table, in the order given.

    Raises:
        ValueError: An id is empty or duplicated, or a field is not text that can be stored.
    """
    _refuse_duplicates("prompt", [prompt.id for prompt in prompts])
    for prompt in prompts:
        _check_prompt(prompt)
    return pa.table(_prompt_columns(prompts), schema=PROMPTS)


def shard_table(candidates: Sequence[Candidate], judgments: Iterable[Judgment]) -> pa.Table:
    """Convert candidates and their judgments to one table with a row for each candidate.

    Raises:
        ValueError: A record is duplicated, a number is not finite or out of range, or a judgment names no candidate in
            ``candidates``.
    """
    _refuse_duplicates("candidate", [candidate.id for candidate in candidates])
    verdicts: dict[str, dict[str, Judgment]] = {candidate.id: {} for candidate in candidates}
    for judgment in judgments:
        _check_judgment(judgment)
        if judgment.candidate_id not in verdicts:
            raise ValueError(
                f"judgment by {judgment.judge!r} names candidate {judgment.candidate_id!r}, which is not in this "
                "shard; write a candidate together with its judgments"
            )
        if judgment.judge in verdicts[judgment.candidate_id]:
            raise ValueError(f"candidate {judgment.candidate_id!r} has two judgments by {judgment.judge!r}; keep one")
        verdicts[judgment.candidate_id][judgment.judge] = judgment
    for candidate in candidates:
        _check_prompt(candidate.prompt)
    codes = [_checked_codes(candidate) for candidate in candidates]
    offsets = np.cumsum([0, *map(len, codes)], dtype=np.int32)
    columns = {
        **_prompt_columns([candidate.prompt for candidate in candidates]),
        "round": [int(candidate.round) for candidate in candidates],
        "index": [int(candidate.index) for candidate in candidates],
        "seed": [int(candidate.seed) for candidate in candidates],
        "codes": pa.ListArray.from_arrays(offsets, np.concatenate([np.empty(0, np.int32), *codes])),
        "logp": [None if candidate.logp is None else float(candidate.logp) for candidate in candidates],
        "judgments": [[_judgment_row(given[judge]) for judge in sorted(given)] for given in verdicts.values()],
    }
    return pa.table(columns, schema=SHARD)


def merge_shards(shards: Sequence[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """Merge shards into a table of candidates and a table of judgments.

    Both are sorted by prompt id and index (judgments also by judge), so they do not depend on ranks and shards.
    """
    # shards of a round begun by an earlier version have no column for the mass
    rows = pa.concat_tables([SHARD.empty_table(), *shards], promote_options="default")
    rows = rows.sort_by([("prompt_id", "ascending"), ("index", "ascending")]).combine_chunks()
    flat = pc.list_flatten(rows["judgments"])
    judgments = pa.table([pc.struct_field(flat, name) for name in JUDGMENTS.names], schema=JUDGMENTS)
    return rows.select(CANDIDATES.names), judgments


def number_table(numbers: Mapping[str, float], value: str, noun: str) -> pa.Table:
    """Convert numbers by candidate id to a table, sorted by id.

    Args:
        numbers: Number by candidate id.
        value: Name of the column of numbers.
        noun: Name of a number in messages.

    Raises:
        ValueError: A number is not finite.
    """
    for name, number in numbers.items():
        _check_text("candidate id", name)
        if not math.isfinite(number):
            raise ValueError(f"{noun} of candidate {name!r} is {number}; it must be finite")
    names = sorted(numbers)
    return pa.table([names, [float(numbers[name]) for name in names]], schema=number_schema(value))


def number_schema(value: str) -> pa.Schema:
    """Return the columns of a table of numbers by candidate id."""
    return pa.schema([("candidate_id", pa.string()), (value, pa.float64())])


def prompts_of(table: pa.Table) -> list[Prompt]:
    """Return the prompts of a table, in its order; rows with the same prompt share one object."""
    seen: dict[tuple[str, ...], Prompt] = {}
    rows = zip(*(table[name].to_pylist() for name in PROMPTS.names), strict=True)
    return [seen.setdefault(row, Prompt(*row)) for row in rows]


def candidates_of(table: pa.Table) -> list[Candidate]:
    """Return the candidates of a table, in its order."""
    lists = table["codes"].combine_chunks()
    # copy once for each table: Arrow's memory is read-only, and torch warns about read-only arrays
    flat = lists.values.to_numpy().copy()
    starts = lists.offsets.to_numpy()
    numbers = zip(*(table[name].to_pylist() for name in ("round", "index", "seed", "logp")), strict=True)
    return [
        Candidate(prompt, round, index, seed, flat[start:stop], logp)
        for prompt, (round, index, seed, logp), start, stop in zip(
            prompts_of(table), numbers, starts[:-1], starts[1:], strict=True
        )
    ]


def judgments_of(table: pa.Table) -> list[Judgment]:
    """Return the judgments of a table, in its order."""
    if "mass" not in table.column_names:  # written by an earlier version
        table = table.append_column("mass", pa.nulls(len(table), pa.float32()))
    return [Judgment(*row) for row in zip(*(table[name].to_pylist() for name in JUDGMENTS.names), strict=True)]


def _judgment_row(judgment: Judgment) -> dict[str, str | float | None]:
    names = (judgment.candidate_id, judgment.judge, float(judgment.logit), judgment.mass)
    return dict(zip(JUDGMENTS.names, names, strict=True))


def _prompt_columns(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    fields = {"prompt_id": "id"}
    return {name: [getattr(prompt, fields.get(name, name)) for prompt in prompts] for name in PROMPTS.names}


def _refuse_duplicates(noun: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{noun} {name!r} comes twice; give each {noun} once")
        seen.add(name)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which is not text: {text[:80]!r}; replace it") from None


def _check_prompt(prompt: Prompt) -> None:
    _check_text("prompt id", prompt.id)
    if not prompt.id:
        raise ValueError(f"a prompt has an empty id (text {prompt.text[:80]!r}); give it one")
    for name in PROMPTS.names[1:]:
        _check_text(f"{name} of prompt {prompt.id!r}", getattr(prompt, name))


def _check_judgment(judgment: Judgment) -> None:
    _check_text("judge name", judgment.judge)
    if not math.isfinite(judgment.logit):
        raise ValueError(
            f"logit of {judgment.judge!r} for candidate {judgment.candidate_id!r} is {judgment.logit}; "
            "it must be finite"
        )


def _checked_codes(candidate: Candidate) -> np.ndarray:
    if candidate.logp is not None and not math.isfinite(candidate.logp):
        raise ValueError(f"logp of candidate {candidate.id!r} is {candidate.logp}; it must be finite")
    if candidate.index < 0:
        raise ValueError(f"index of candidate {candidate.id!r} must be >= 0, got {candidate.index}")
    if not -(2**63) <= candidate.seed < 2**63:
        raise ValueError(f"seed of candidate {candidate.id!r} must fit 64 signed bits, got {candidate.seed}")
    codes = np.asarray(candidate.drawing)
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(
            f"codes of candidate {candidate.id!r} must be integers of shape (M,), got {codes.dtype} {codes.shape}"
        )
    if codes.size and (codes.min() < 0 or codes.max() >= 2**31):
        raise ValueError(f"codes of candidate {candidate.id!r} must be in [0, 2**31), got {codes.min()}..{codes.max()}")
    return codes.astype(np.int32)
