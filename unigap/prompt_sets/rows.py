"""What every prompt set is held to, whatever its format: clean text, plain names, ids that differ, strict JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unigap.records import Prompt

MAX_BYTES = 64 * 2**20
MAX_CHARACTERS = 4000
MAX_TRUTH = 100_000
BYTE_ORDER_MARK = "\ufeff"

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and what it holds."""


def read_text(path: str | Path, kinds: Sequence[str], otherwise: str = "", noun: str = "prompts") -> str:
    """The text of a file.

    Args:
        path: The file.
        kinds: Suffixes it may have.
        otherwise: What else the user could have named, for the message.
        noun: What the file holds, likewise.

    Raises:
        ValueError: When it is a URL, missing, of another kind, too large, or not UTF-8.
    """
    file, named = Path(path), f"{noun} {str(path)!r}"
    refuse_url(path, noun)
    wanted = f"{otherwise}a {' or a '.join(kinds)} file"
    if not file.is_file():
        raise ValueError(f"{named}: no such file; give {wanted}")
    if file.suffix not in kinds:
        raise ValueError(f"{named}: unknown kind {file.suffix!r}; give {wanted}")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{named}: larger than {MAX_BYTES >> 20} MiB; split it")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{named}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def refuse_url(path: str | Path, noun: str = "prompts") -> None:
    """Makes sure a source lies on this machine."""
    if "://" in str(path):
        raise ValueError(f"{noun} {str(path)!r} is a URL; download it and give the file")


def lines_of(text: str, named: str) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with where it stands in what is ``named`` so in messages."""
    # splitlines would also split at U+2028 and U+0085, which JSON allows inside a string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{named}, line {number}", line


def json_rows(text: str, named: str) -> Iterator[Row]:
    """The objects of a JSONL text."""
    for where, line in lines_of(text, named):
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise ValueError(f"{where}: needs an object, one a line, got {type(row).__name__}")
        yield where, row


def csv_rows(text: str, named: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV text with a header, each with all of these columns.

    Raises:
        ValueError: When a column is missing, a row has another number of fields, or a quote stays open.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        require_columns(columns, reader.fieldnames or (), f"{named}: ")
        for row in reader:
            where = f"{named}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: needs {len(reader.fieldnames or ())} fields as in the header; mend the row")
            yield where, row
    except csv.Error as error:
        raise ValueError(f"{named}, line {reader.reader.line_num}: broken CSV ({error}); mend it") from error


def require_columns(wanted: Sequence[str], there: Iterable[str], named: str = "") -> None:
    """Makes sure a table has the columns its set is read from."""
    known = sorted(there)
    for column in wanted:
        if column not in known:
            raise ValueError(f"{named}no column {column!r}; it has: {', '.join(known)[:120] or 'none'}")


def parse_json(text: str, where: str) -> Any:
    """What JSON text means, where it means one thing.

    Raises:
        ValueError: When it is no JSON, says a key twice, holds NaN or infinity, or is nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({str(error).splitlines()[0][:80]}); write one object a line") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f"the key {key[:40]!r} occurs twice")
        row[key] = value
    return row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def text_field(row: dict[str, Any], name: str, where: str) -> str:
    """A string of a row, without the white space around it.

    Raises:
        ValueError: When it is missing, empty or no string.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if name not in row else type(value).__name__
        raise ValueError(f"{where}: {name!r} must be a non-empty string, got {got}; quote it")
    return value.strip()


def as_truth(truth: dict[str, Any]) -> str:
    """Structured truth as a prompt carries it: compact JSON, or nothing."""
    return json.dumps(truth, ensure_ascii=False) if truth else ""


def family(item_id: str) -> str:
    """The part of a benchmark an id belongs to: what stands before its number.

    >>> family("whoops_5"), family("partiprompts12"), family("299")
    ('whoops', 'partiprompts', 'any')
    """
    return re.sub(r"_?\d+$", "", item_id) or "any"


def distinct(rows: Iterable[tuple[str, Prompt]], named: str) -> list[Prompt]:
    """All prompts of a set, in order, once each is known to be clean.

    Raises:
        ValueError: When a prompt cannot be stored or shown, an id occurs twice, or there is no prompt.
    """
    prompts: dict[str, Prompt] = {}
    for where, prompt in rows:
        _check(prompt, where)
        if prompt.id in prompts:
            raise ValueError(f"{where}: id {prompt.id[:60]!r} occurs twice; make ids unique")
        prompts[prompt.id] = prompt
    if not prompts:
        raise ValueError(f"{named}: the file holds no prompt; add one a line")
    return list(prompts.values())


def _check(prompt: Prompt, where: str) -> None:
    if not prompt.text:
        raise ValueError(f"{where}: empty prompt; give it a text or remove the line")
    names = (prompt.id, prompt.category, prompt.difficulty, prompt.split)
    for noun, limit, values in (
        ("prompt", MAX_CHARACTERS, (prompt.text,)),
        ("name", MAX_CHARACTERS, names),
        ("truth", MAX_TRUTH, (prompt.truth,)),
    ):
        for value in values:
            if len(value) > limit:
                raise ValueError(f"{where}: {noun} of {len(value)} characters; shorten it to {limit}")
            if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 or char == BYTE_ORDER_MARK for char in value):
                raise ValueError(
                    f"{where}: holds a control character, a byte-order mark or a broken surrogate; remove it"
                )
    # ids name rows in reports and file names of other tools
    if ".." in re.split(r"[/\\]", prompt.id):
        raise ValueError(f"{where}: id {prompt.id[:60]!r} is a path that leaves its folder; give it a plain name")
