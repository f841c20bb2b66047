"""Where prompts come from: the embedded world by name, or a file of the user's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unigap.records import Prompt
from unigap.shapes import prompt_sets

MAX_BYTES = 64 * 2**20
MAX_CHARACTERS = 4000
BYTE_ORDER_MARK = "\ufeff"


def load_prompts(source: str, split: str, per_cell: int | None = None) -> list[Prompt]:
    """The prompts of one split of a source.

    Args:
        source: ``shapes`` for the embedded world, or a ``.txt`` (one prompt a line) or ``.jsonl`` file (objects with
            ``text`` and optionally ``id``, ``category``, ``difficulty``, ``split``).
        split: Part of the set; rows of a file that name no split belong to every one.
        per_cell: At most this many for each (category, difficulty); ``None`` takes all.

    Raises:
        ValueError: When the file is missing, is not UTF-8, holds a damaged row (named by its line) or no prompt.
    """
    if source == "shapes":
        return prompt_sets.prompts(split, per_cell)
    if per_cell is not None and per_cell < 1:
        raise ValueError(f"per_cell must be >= 1, got {per_cell}")
    rows = [prompt for prompt in read_prompt_file(source) if prompt.split in ("", split)]
    if not rows:
        raise ValueError(
            f"prompts {source!r}: no prompt in split {split!r}; leave the split out of its rows to use all"
        )
    return list(_first_of_each_cell(rows, per_cell or len(rows)))


def read_prompt_file(path: str | Path) -> list[Prompt]:
    """All prompts of a text or JSONL file, in order; see ``load_prompts``."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"prompts {str(path)!r}: no such file; give 'shapes', a .txt or a .jsonl file")
    if file.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"prompts {str(path)!r}: unknown kind {file.suffix!r}; give a .txt or a .jsonl file")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"prompts {str(path)!r}: larger than {MAX_BYTES >> 20} MiB; split it")
    try:
        # splitlines would also split at U+2028 and U+0085, which JSON allows inside a string
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts {str(path)!r}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"prompts {str(path)!r}, line {number}"
        prompt = (
            _from_json(line, where) if file.suffix == ".jsonl" else _checked(Prompt(line.strip(), line.strip()), where)
        )
        if prompt.id in prompts:
            raise ValueError(f"{where}: id {prompt.id[:60]!r} occurs twice; make ids unique")
        prompts[prompt.id] = prompt
    if not prompts:
        raise ValueError(f"prompts {str(path)!r}: the file holds no prompt; add one a line")
    return list(prompts.values())


def _from_json(line: str, where: str) -> Prompt:
    try:
        row = json.loads(line, object_pairs_hook=_each_key_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({str(error).splitlines()[0][:80]}); write one object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ValueError(f"{where}: needs an object with a 'text' string; write {{\"text\": ...}}")
    fields = {name: row[name] for name in ("id", "category", "difficulty", "split") if name in row}
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{where}: {name!r} must be a non-empty string, got {type(value).__name__}; quote it")
    return _checked(Prompt(**{"id": row["text"].strip(), "text": row["text"].strip()} | fields), where)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f"the key {key[:40]!r} occurs twice")
        row[key] = value
    return row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _checked(prompt: Prompt, where: str) -> Prompt:
    if not prompt.text:
        raise ValueError(f"{where}: empty prompt; give it a text or remove the line")
    for value in (prompt.text, prompt.id, prompt.category, prompt.difficulty, prompt.split):
        if len(value) > MAX_CHARACTERS:
            noun = "prompt" if value is prompt.text else "name"
            raise ValueError(f"{where}: {noun} of {len(value)} characters; shorten it to {MAX_CHARACTERS}")
        if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 or char == BYTE_ORDER_MARK for char in value):
            raise ValueError(f"{where}: holds a control character, a byte-order mark or a broken surrogate; remove it")
    # ids name rows in reports and file names of other tools
    if ".." in re.split(r"[/\\]", prompt.id):
        raise ValueError(f"{where}: id {prompt.id[:60]!r} is a path that leaves its folder; give it a plain name")
    return prompt


def _first_of_each_cell(prompts: Iterable[Prompt], count: int) -> Iterable[Prompt]:
    taken: dict[tuple[str, str], int] = {}
    for prompt in prompts:
        cell = (prompt.category, prompt.difficulty)
        taken[cell] = taken.get(cell, 0) + 1
        if taken[cell] <= count:
            yield prompt


def normalised(text: str) -> str:
    """The form in which prompts are compared: case, white space and a final full stop do not count."""
    return " ".join(text.lower().split()).rstrip(".").strip()


def check_no_overlap(train: Iterable[Prompt], held_out: Iterable[Prompt]) -> None:
    """Makes sure nothing that is evaluated on is trained on.

    Raises:
        ValueError: Names the first prompt that occurs on both sides.
    """
    seen = {normalised(prompt.text) for prompt in train}
    shared = [prompt.text for prompt in held_out if normalised(prompt.text) in seen]
    if shared:
        raise ValueError(f"{len(shared)} evaluation prompts are also trained on, first {shared[0][:60]!r}; remove them")
