"""Any set that the ``datasets`` library reads: a local file or folder, or a hub id, and the name of the text column."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_datasets
from unigap.files.outside import read_outside_text, refuse_special
from unigap.prompt_sets.rows import distinct, refuse_url, require_columns, text_field
from unigap.records import Prompt

KINDS = {
    ".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".arrow": "arrow", ".txt": "text"
}  # fmt: skip
"""Readers that load plain values only, by file suffix; all other readers are refused."""
MOST_ROWS, MOST_CARD = 1_000_000, 2**20
"""Most rows of a split (a few bytes of Parquet can expand to any number); most bytes of a folder's README.md."""
FIELDS = ("category", "difficulty")
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
CARD = re.compile(r"^configs:.*\n(?:[ \t-].*\n)*", re.MULTILINE)
"""The part of a folder's README.md that may name data elsewhere."""


def read_datasets(source: str) -> list[Prompt]:
    """Read the prompts of every split, in order.

    Args:
        source: ``NAME#COLUMN`` or ``NAME:CONFIG#COLUMN``. The name is a file, a folder or a hub id; the column holds
            the prompts and defaults to ``text``. String columns ``category`` and ``difficulty`` are read if present.
            Ids count the rows of a split, e.g. ``train-000000``. With a single split, prompts name no split.

    Raises:
        ValueError: The source is a URL, needs code or a pickle, or cannot be read by ``datasets``; or the column is
            missing or holds no text.
    """
    location, _, column = source.partition("#")
    refuse_url(location)
    name, _, config = location.partition(":")
    splits, named = _read(name, config or None, column or "text"), f"prompts {name!r}"
    return distinct(_prompts(splits, column or "text", named), named)


def _prompts(splits: Mapping[str, list[dict[str, Any]]], column: str, named: str) -> Iterator[tuple[str, Prompt]]:
    for split, rows in splits.items():
        for number, row in enumerate(rows):
            where = f"{named}, {split} row {number + 1}"
            given = {name: row[name].strip() for name in FIELDS if isinstance(row.get(name), str) and row[name].strip()}
            text, part = text_field(row, column, where), split if len(splits) > 1 else ""
            yield where, Prompt(f"{split}-{number:06d}", text, **given, split=part)


def _read(name: str, config: str | None, column: str) -> dict[str, list[dict[str, Any]]]:
    # takes seconds to import, and only this source needs it
    from datasets.exceptions import DatasetsError

    try:
        with quiet_datasets():
            return {split: _limited(_columns(rows, column)) for split, rows in _open(name, config).items()}
    except (DatasetsError, RuntimeError, ValueError, OSError) as error:
        reason = shortened(str(error) or type(error).__name__)
        raise ValueError(f"prompts {name!r}: {reason}") from error


def _limited(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found = list(itertools.islice(rows, MOST_ROWS + 1))
    if len(found) > MOST_ROWS:
        raise ValueError(f"more than {MOST_ROWS} rows; split it")
    return found


def _columns(rows: Any, column: str) -> Iterator[dict[str, Any]]:
    """Yield the rows with only the columns that are read, so that no image is decoded."""
    if rows.features is None:  # a CSV or JSON stream has no schema before its first row
        for row in rows:
            require_columns([column], row)
            yield {name: row[name] for name in (column, *FIELDS) if name in row}
    else:
        require_columns([column], rows.features)
        yield from rows.select_columns([name for name in dict.fromkeys([column, *FIELDS]) if name in rows.features])


def _open(name: str, config: str | None) -> Mapping[str, Any]:
    import datasets

    path = Path(name)
    refuse_special(path, "it", "a plain file or a folder")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        saved = datasets.load_from_disk(path.absolute())
        return saved if isinstance(saved, datasets.DatasetDict) else {"all": saved}
    if path.is_file():
        if path.suffix not in KINDS:
            raise ValueError(f"unknown kind {path.suffix!r}; give one of: {', '.join(KINDS)}")
        builder = datasets.load_dataset_builder(KINDS[path.suffix], data_files=str(path.absolute()))
    elif path.is_dir() or HUB_ID.fullmatch(name):
        _refuse_card_with_url(path / "README.md")
        builder = datasets.load_dataset_builder(str(path.absolute()) if path.is_dir() else name, config)
    else:
        raise ValueError("no such file or folder, and no hub id such as owner/name")
    _refuse_unsafe_reader(builder, local=path.exists())
    if path.exists():
        return builder.as_streaming_dataset()  # makes no copy in the cache
    builder.download_and_prepare()
    return builder.as_dataset()


def _refuse_card_with_url(card: Path) -> None:
    """Check the README.md of a local folder before ``datasets`` follows its URLs."""
    if not card.exists():
        return
    found = CARD.search(read_outside_text(card, "its README.md", "a plain file", MOST_CARD))
    if found and "://" in found[0]:
        raise ValueError("its README.md names data at a URL; download it and give the file")


def _refuse_unsafe_reader(builder: Any, local: bool) -> None:
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in KINDS.values():
        raise ValueError(f"would be read as {kind!r}; only these are read: {', '.join(sorted(set(KINDS.values())))}")
    for files in (builder.config.data_files or {}).values():
        for file in files:
            if "://" in str(file) and (local or not str(file).startswith("hf://")):
                raise ValueError(f"names data at the URL {str(file)[:80]!r}; download it and give the file")
