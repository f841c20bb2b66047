"""Strict readers for tables from outside: CSV and JSON, known keys, clean text, unique ids."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unigap.console.mistakes import hint, shortened
from unigap.files.outside import read_outside_text
from unigap.records import Prompt

MAX_BYTES = 64 * 2**20
MAX_CHARACTERS = 4000
MAX_TRUTH = 100_000
MOST_LISTED = 8
BYTE_ORDER_MARK = "\ufeff"
BREAK = re.compile(r" *[\r\n][ \r\n]*")

Row = tuple[str, dict[str, Any]]
"""File and line of a row, for messages, and its content."""


def read_text(path: str | Path, kinds: Sequence[str], otherwise: str = "", noun: str = "prompts") -> str:
    """Read a text file.

    Args:
        path: The file.
        kinds: Allowed suffixes.
        otherwise: Other sources the user could have named, for the message.
        noun: Content of the file, for the message.

    Raises:
        ValueError: The path is a URL; or the file is missing, has another suffix, is too large or not UTF-8.
    """
    file, named = Path(path), f"{noun} {str(path)!r}"
    refuse_url(path, noun)
    wanted = f"{otherwise}a {' or a '.join(kinds)} file"
    if file.is_file() and file.suffix not in kinds:
        raise ValueError(f"{named}: unknown kind {file.suffix!r}; give {wanted}")
    return read_outside_text(file, named, wanted, MAX_BYTES)


def refuse_url(path: str | Path, noun: str = "prompts") -> None:
    """Check that a source is not a URL."""
    if "://" in str(path):
        raise ValueError(f"{noun} {str(path)!r} is a URL; download it and give the file")


def lines_of(text: str, named: str) -> Iterator[tuple[str, str]]:
    """Yield the non-blank lines, each with its file (called ``named``) and line number for messages."""
    # splitlines would also split at U+2028 and U+0085, which JSON allows inside a string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{named}, line {number}", line


def json_rows(text: str, named: str, holding: str = "") -> Iterator[Row]:
    """Yield the objects of a JSONL text; ``holding`` tells in messages what each must contain.

    Raises:
        ValueError: A line is not a JSON object.
    """
    for where, line in lines_of(text, named):
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise ValueError(f"{where}: needs an object{holding}, one a line, got {type(row).__name__}")
        yield where, row


def csv_rows(text: str, named: str, columns: Sequence[str], ignored: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a CSV text with a header.

    Args:
        text: The text.
        named: Name of the file in messages.
        columns: The columns that are read; all must be there.
        ignored: Columns of the format that are not read; a notice names any other column.

    Raises:
        ValueError: A column is missing or occurs twice, a row has another number of fields, or a quote is not closed.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames or ()
        if len(header) == 1 and columns and any(mark in header[0] for mark in ";\t"):
            raise ValueError(f"{named}, line 1: no column {columns[0]!r}; separate the columns by commas")
        require_columns(columns, header, f"{named}: ")
        twice = next((name for name, count in Counter(header).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{named}, line 1: two columns {twice[:40]!r}; keep one")
        _print_unread(named, Counter(name for name in header if name not in {*columns, *ignored}), "columns")
        for row in reader:
            where = f"{named}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: needs {len(header)} fields as in the header; mend the row")
            yield where, row
    except csv.Error as error:
        raise ValueError(f"{named}, line {reader.reader.line_num}: broken CSV ({error}); mend it") from error


def with_known_keys(rows: Iterable[Row], named: str, known: Collection[str]) -> Iterator[Row]:
    """Yield the rows unchanged; after the last one, print a notice on stderr that counts the keys not in ``known``."""
    unread: Counter[str] = Counter()
    for where, row in rows:
        unread.update(key for key in row if key not in known)
        yield where, row
    _print_unread(named, unread, "keys")


def refuse_unknown_keys(item: Collection[str], known: Collection[str], where: str) -> None:
    """Check that an object has known keys only.

    Raises:
        ValueError: It has another key.
    """
    for key in item:
        if key not in known:
            raise ValueError(f"{where}: the key {key[:40]!r} is not understood{hint(key, known)}")


def _print_unread(named: str, unread: Counter[str], noun: str) -> None:
    if unread:
        listed = ", ".join(f"{key[:40]!r} ({count} of them)" if count > 1 else repr(key[:40])
                           for key, count in unread.most_common(MOST_LISTED))  # fmt: skip
        more = f" and {len(unread) - MOST_LISTED} more" if len(unread) > MOST_LISTED else ""
        print(f"note: {named}: {noun} that are not read: {listed}{more}", file=sys.stderr)


def require_columns(wanted: Sequence[str], present: Iterable[str], named: str = "") -> None:
    """Check that a table has all wanted columns."""
    known = sorted(present)
    for column in wanted:
        if column not in known:
            raise ValueError(f"{named}no column {column!r}; it has: {', '.join(known)[:120] or 'none'}")


def parse_json(text: str, where: str) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: The text is not JSON, repeats a key, holds NaN or infinity, or is nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_no_number, parse_float=_finite_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({shortened(str(error), 80)}); write one object a line") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f"the key {key[:40]!r} occurs twice")
        row[key] = value
    return row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return number


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """Return a string of a row, stripped of white space.

    Raises:
        ValueError: It is missing, empty or not a string.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if name not in row else type(value).__name__
        raise ValueError(f"{where}: {name!r} must be a non-empty string, got {got}; quote it")
    return value.strip()


def as_truth(truth: dict[str, Any]) -> str:
    """Return structured truth as ``Prompt.truth`` stores it: JSON, or the empty string for none."""
    return json.dumps(truth, ensure_ascii=False, allow_nan=False) if truth else ""


def on_one_line(text: str) -> str:
    """Return the text with each run of line breaks, and the spaces around it, replaced by one space."""
    return BREAK.sub(" ", text.strip())


def family(item_id: str) -> str:
    """Return the part of a benchmark that an id belongs to: the id without its number.

    >>> family("whoops_5"), family("partiprompts12"), family("299")
    ('whoops', 'partiprompts', 'any')
    """
    return re.sub(r"_?\d+$", "", item_id) or "any"


def distinct(rows: Iterable[tuple[str, Prompt]], named: str) -> list[Prompt]:
    """Check all prompts of a set and return them in order.

    Published sets have line breaks inside long prompts; each is read as a space, and a notice on stderr counts such
    prompts.

    Raises:
        ValueError: A prompt cannot be stored or shown, an id occurs twice, or there is no prompt.
    """
    prompts: dict[str, Prompt] = {}
    broken = 0
    for where, given in rows:
        prompt = replace(given, text=on_one_line(given.text))
        broken += prompt.text != given.text.strip()
        _check(prompt, where)
        if prompt.id in prompts:
            raise ValueError(f"{where}: id {prompt.id[:60]!r} occurs twice; make ids unique")
        prompts[prompt.id] = prompt
    if not prompts:
        raise ValueError(f"{named}: the file holds no prompt; add one a line")
    if broken:
        print(f"note: {named}: {broken} of {len(prompts)} prompts hold line breaks, read as spaces",
              file=sys.stderr)  # fmt: skip
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
    # ids name rows in reports, and files of other tools
    if ".." in re.split(r"[/\\]", prompt.id):
        raise ValueError(f"{where}: id {prompt.id[:60]!r} is a path that leaves its folder; give it a plain name")
