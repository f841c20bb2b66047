"""TIFA v1.0: captions, or captions with multiple-choice questions, as JSON or JSONL (arXiv 2303.11897)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unigap.prompt_sets.rows import (
    Row,
    as_truth,
    distinct,
    family,
    json_rows,
    parse_json,
    read_text,
    text_field,
    with_known_keys,
)
from unigap.prompt_sets.tiers import tier
from unigap.records import Prompt

QUESTION = ("question", "answer", "element", "element_type")
KNOWN = ("id", "caption", "choices", *QUESTION, "coco_val_id")


def read_tifa(path: str) -> list[Prompt]:
    """Read the captions in the order of first occurrence.

    The file is ``tifa_v1.0_text_inputs.json`` (``id``, ``caption``) or ``tifa_v1.0_question_answers.json`` (also
    ``question``, ``choices``, ``answer``, ``element``, ``element_type``; one row a question), each a list of objects,
    or JSONL with the same objects. The category is the source of the caption, e.g. ``drawbench``. The truth is
    ``{"questions": [...]}`` if there are questions; each element asked about is one claim, see `tiers.tier`.

    Raises:
        ValueError: The file has another form, or a row is damaged (named by its number).
    """
    captions: dict[str, tuple[str, str, list[dict[str, Any]]]] = {}
    for where, row in with_known_keys(_rows(path), f"prompts {path!r}", KNOWN):
        name, caption = text_field(row, "id", where), text_field(row, "caption", where)
        _, known, questions = captions.setdefault(name, (where, caption, []))
        if caption != known:
            raise ValueError(f"{where}: id {name[:60]!r} has another caption than before; give it one")
        if "question" in row:
            questions.append(_question(row, where))
    return distinct(_prompts(captions), f"prompts {path!r}")


def _rows(path: str) -> Iterator[Row]:
    text, named = read_text(path, (".json", ".jsonl")), f"prompts {path!r}"
    if Path(path).suffix == ".jsonl":
        yield from json_rows(text, named)
        return
    rows = parse_json(text, named)
    if not isinstance(rows, list):
        raise ValueError(f"{named}: needs a list of objects with 'id' and 'caption'; this is no TIFA file")
    for number, row in enumerate(rows, 1):
        where = f"{named}, row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: needs an object with 'id' and 'caption', got {type(row).__name__}")
        yield where, row


def _question(row: dict[str, Any], where: str) -> dict[str, Any]:
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f'{where}: \'choices\' must be a list of strings; write ["yes", "no"]')
    for name in QUESTION:
        if not isinstance(row.get(name), str):
            raise ValueError(f"{where}: {name!r} must be a string, got {type(row.get(name)).__name__}; quote it")
    return {**{name: row[name].strip() for name in QUESTION}, "choices": choices}


def _prompts(captions: dict[str, tuple[str, str, list[dict[str, Any]]]]) -> Iterator[tuple[str, Prompt]]:
    for name, (where, caption, questions) in captions.items():
        truth = as_truth({"questions": questions} if questions else {})
        claims = len({question["element"] for question in questions if question["element"]})
        yield where, Prompt(name, caption, family(name), tier(claims), truth=truth)
