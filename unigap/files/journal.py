"""Append-only JSONL files; each line carries the sha256 of its content."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigap.files.durable import digest, explain_write_errors, make_folder, write_durable
from unigap.files.plain import check_plain, open_plain

DIGEST = "sha256"


@dataclass(frozen=True)
class Journal:
    """Content of a journal file.

    Attributes:
        records: Contents of the intact lines, in order.
        torn: Start of a last line that was cut off by a full disk or a power cut; empty if there is none.
    """

    records: list[dict[str, Any]]
    torn: str


def line_of(record: Mapping[str, Any]) -> str:
    """Return a record as a line with its digest."""
    return json.dumps({**record, DIGEST: digest(json.dumps(record).encode())}) + "\n"


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line durably.

    Raises:
        ValueError: The file is no regular file.
        OSError: It cannot be written; the message names it.
    """
    make_folder(path.parent)
    if path.exists():
        check_plain(path)
    with explain_write_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(line_of(record))
        file.flush()
        os.fsync(file.fileno())


def read_journal(path: Path, keys: Collection[str]) -> Journal:
    """Read every line and check every byte.

    Args:
        path: The file.
        keys: Keys of a record. Lines of earlier versions hold these keys and no digest.

    Raises:
        ValueError: A line is damaged, or the file is no regular file; the message names the line.
    """
    records: list[dict[str, Any]] = []
    with open_plain(path) as file:
        for number, raw in enumerate(file, 1):
            record = _record(raw, keys)
            if record is None and not raw.rstrip(b"\0").endswith(b"\n"):
                return Journal(records, raw.decode(errors="replace"))
            if record is None:
                raise ValueError(
                    f"{path}: line {number} is damaged: it does not match the sha256 it carries; restore the file, or "
                    "delete it to go on without what it holds"
                )
            records.append(record)
    return Journal(records, "")


def recover_journal(path: Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """Return the records of a journal, and cut off a last line that is torn; none if there is no file yet.

    Args:
        path: The file.
        keys: As in `read_journal`.

    Raises:
        ValueError: As in `read_journal`.
        OSError: A torn line cannot be cut off.
    """
    if not path.exists():
        return []
    journal = read_journal(path, keys)
    if journal.torn:
        write_durable(path, "".join(map(line_of, journal.records)).encode())
    return journal.records


def _record(raw: bytes, keys: Collection[str]) -> dict[str, Any] | None:
    """Return the content of a line; None if it is damaged."""
    try:
        line = raw.decode()
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.keys() - {DIGEST} != set(keys):
        return None
    stated = record.pop(DIGEST, None)
    return record if stated is None or line_of(record).rstrip("\n") == line.rstrip("\n") else None
