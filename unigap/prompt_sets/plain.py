"""Read and write a user's prompt file: text with one prompt a line, or JSONL with one object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unigap.files.durable import write_durable
from unigap.files.outputs import refuse_inside_pool
from unigap.prompt_sets.rows import (
    as_truth,
    distinct,
    json_rows,
    lines_of,
    on_one_line,
    read_text,
    text_field,
    with_known_keys,
)
from unigap.records import Prompt
from unigap.world import world_names

FIELDS = ("id", "category", "difficulty", "split")


def read_prompt_file(path: str | Path) -> list[Prompt]:
    """Read all prompts of a text or JSONL file, in order; the id defaults to the text.

    Raises:
        ValueError: The file is missing, is not UTF-8, holds a damaged row (named by its line) or no prompt.
    """
    worlds, named = ", ".join(map(repr, world_names())), f"prompts {str(path)!r}"
    text = read_text(path, (".txt", ".jsonl"), f"{worlds}, SET:PATH, ")
    return distinct(_prompts(text, named, Path(path).suffix == ".txt"), named)


def _prompts(text: str, named: str, plain: bool) -> Iterator[tuple[str, Prompt]]:
    if plain:
        for where, line in lines_of(text, named):
            yield where, Prompt(on_one_line(line), on_one_line(line))
        return
    for where, row in with_known_keys(
        json_rows(text, named, " with a 'text' string"), named, (*FIELDS, "text", "truth")
    ):
        yield where, _from_object(row, where)


def _from_object(row: Mapping[str, Any], where: str) -> Prompt:
    if not isinstance(row.get("text"), str):
        raise ValueError(f"{where}: needs an object with a 'text' string; write {{\"text\": ...}}")
    truth = row.get("truth", {})
    if not isinstance(truth, dict):
        raise ValueError(f"{where}: 'truth' must be an object, got {type(truth).__name__}; see docs/prompts.md")
    fields = {name: text_field(row, name, where) for name in FIELDS if name in row}
    return Prompt(**{"id": on_one_line(row["text"]), "text": row["text"], "truth": as_truth(truth)} | fields)


def write_prompt_file(prompts: Iterable[Prompt], path: str) -> None:
    """Write a JSONL file that ``read_prompt_file`` reads back as the same prompts.

    Raises:
        ValueError: The file exists, lies in a pool, or its folder does not exist.
    """
    file = Path(path)
    if file.suffix != ".jsonl" or not file.parent.is_dir():
        raise ValueError(f"--out {path!r} is no .jsonl file in an existing folder; give the name of one")
    if os.path.lexists(file):
        raise ValueError(f"--out {path!r} exists; remove it or give another name")
    refuse_inside_pool(file, "--out")
    rows = (
        {"id": prompt.id, "text": prompt.text, "category": prompt.category, "difficulty": prompt.difficulty}
        | ({"split": prompt.split} if prompt.split else {})
        | ({"truth": json.loads(prompt.truth)} if prompt.truth else {})
        for prompt in prompts
    )
    write_durable(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
