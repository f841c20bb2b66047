"""Science-T2I-S and -C: a Parquet file of prompts that need scientific knowledge to draw (arXiv 2504.13129)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unigap.console.mistakes import shortened
from unigap.files.outside import refuse_special
from unigap.prompt_sets.rows import as_truth, distinct, refuse_url, require_columns, text_field
from unigap.records import Prompt

MOST_ROWS = 1_000_000
PROMPT, CATEGORY = "implicit_prompt", "category"
TRUTH = {"explicit": "explicit_prompt", "superficial": "superficial_prompt", "law": "law"}


def read_science_t2i(path: str) -> list[Prompt]:
    """Read the implicit prompts in order, numbered from ``0000``; the images in the file are not read.

    The truth is ``{"explicit", "superficial", "law"}``: the scene with its scientific consequence spelled out, the
    scene as it would look if the law did not hold, and the law. It has no list of claims, so every difficulty is
    ``"any"``.

    Raises:
        ValueError: The file is not a Parquet file, lacks a column, or a cell is not text.
    """
    refuse_url(path)
    named = f"prompts {path!r}"
    refuse_special(path, named, "a .parquet file")
    if not Path(path).is_file():
        raise ValueError(f"{named}: no such file; give a .parquet file")
    columns = [PROMPT, CATEGORY, *TRUTH.values()]
    try:
        with pq.ParquetFile(path) as file:
            require_columns(columns, file.schema_arrow.names, f"{named}: ")
            # a few bytes of Parquet can expand to any number of equal rows
            if file.metadata.num_rows > MOST_ROWS:
                raise ValueError(f"{named}: {file.metadata.num_rows} rows; at most {MOST_ROWS} are read, split it")
            rows = file.read(columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{named}: not a valid Parquet file ({shortened(str(error), 80)})") from error
    return distinct(_prompts(rows, named), named)


def _prompts(rows: list[dict[str, Any]], named: str) -> Iterator[tuple[str, Prompt]]:
    for number, row in enumerate(rows):
        where = f"{named}, row {number + 1}"
        truth = {name: text_field(row, column, where) for name, column in TRUTH.items()}
        text, category = text_field(row, PROMPT, where), text_field(row, CATEGORY, where)
        yield where, Prompt(f"{number:04d}", text, category, truth=as_truth(truth))
