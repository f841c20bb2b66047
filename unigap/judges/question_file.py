"""Questions from a file: DSG's published CSV, or JSONL with one question a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigap.judges.questions import Question, QuestionSource, with_sound_parents
from unigap.prompt_sets.rows import csv_rows, json_rows, read_text, with_known_keys
from unigap.records import Prompt

DSG = {"prompt": "item_id", "id": "proposition_id", "question": "question_natural_language", "parents": "dependency"}
"""Columns of a DSG file, by the key of a JSONL file with the same content."""
IGNORED = ("text", "keywords", "category_broad", "category_detailed", "tuple")
"""Columns of a DSG file that are not read."""

Located = dict[str, tuple[str, Question]]
"""Questions of a prompt by id, each with its file and line."""


class QuestionFile(QuestionSource):
    """Questions from a file, by prompt id.

    A ``.csv`` file has DSG's published columns: ``item_id``, ``proposition_id``, ``question_natural_language`` and
    ``dependency`` (ids of the parents, 0 for none). Parents that are no question of their prompt, or that depend on
    their own child, occur in the published file; they are dropped, and one line on stderr counts them. They cannot
    change a verdict, see ``all_hold``. A ``.jsonl`` file holds objects with ``prompt`` (the prompt's id), ``id``,
    ``question`` and optionally ``parents``, a list of ids; there such a parent is an error.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._by_prompt = _read(path)

    @property
    def name(self) -> str:
        return "file"

    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        if prompt.id not in self._by_prompt:
            raise ValueError(f"questions {str(self.path)!r}: none for prompt {prompt.id[:80]!r}; add them")
        return self._by_prompt[prompt.id]


@dataclass(frozen=True)
class _Fault:
    """A parent that cannot be used: missing from the prompt's questions, or (``exists``) part of a cycle."""

    where: str
    question: Question
    parent: str
    exists: bool

    def __str__(self) -> str:
        fault = "which depends on it in turn, in a circle; remove it" if self.exists else "which is not there; add it"
        return f"{self.where}: question {self.question.id[:80]!r} depends on {self.parent[:80]!r}, {fault}"


def _read(path: str) -> dict[str, tuple[Question, ...]]:
    named, published = f"questions {path!r}", Path(path).suffix == ".csv"
    text = read_text(path, (".csv", ".jsonl"), noun="questions")
    found: dict[str, Located] = {}
    for where, prompt, question in _dsg_rows(text, named) if published else _own_rows(text, named):
        if not (prompt and question.id and question.text):
            raise ValueError(f"{where}: needs the id of a prompt, an id and a question")
        if question.id in found.setdefault(prompt, {}):
            raise ValueError(f"{where}: prompt {prompt[:80]!r} has two questions {question.id[:80]!r}")
        found[prompt][question.id] = where, question
    if not found:
        raise ValueError(f"{named}: the file holds no question; add one a line")
    sound = {name: with_sound_parents(question for _, question in located.values()) for name, located in found.items()}
    faults = [fault for name, located in found.items() for fault in _faults(located, sound[name])]
    if faults and not published:
        raise ValueError(str(faults[0]))
    if faults:
        print(f"warning: {named}: {_counted(faults, found)}", file=sys.stderr)
    return sound


def _dsg_rows(text: str, named: str) -> Iterator[tuple[str, str, Question]]:
    for where, row in csv_rows(text, named, tuple(DSG.values()), IGNORED):
        cell = {ours: row[theirs].strip() for ours, theirs in DSG.items()}
        parts = map(str.strip, cell["parents"].split(","))
        parents = tuple(part for part in parts if part not in ("", "0"))
        yield where, cell["prompt"], Question(cell["id"], cell["question"], parents)


def _own_rows(text: str, named: str) -> Iterator[tuple[str, str, Question]]:
    for where, row in with_known_keys(json_rows(text, named), named, tuple(DSG)):
        parents = row.get("parents", [])
        if not (isinstance(parents, list) and all(isinstance(parent, str) for parent in parents)):
            raise ValueError(f"{where}: 'parents' must be a list of ids; quote them")
        yield where, _text(row, "prompt"), Question(_text(row, "id"), _text(row, "question"), tuple(parents))


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else ""


def _faults(located: Located, sound: tuple[Question, ...]) -> Iterator[_Fault]:
    for (where, question), kept in zip(located.values(), sound, strict=True):
        for parent in question.parents:
            if parent not in kept.parents:
                yield _Fault(where, question, parent, parent in located)


def _counted(faults: list[_Fault], found: Mapping[str, Located]) -> str:
    """Say how many questions have a missing parent, how many are in a cycle, and which is the first."""
    missing, circular = (len({fault.where for fault in faults if fault.exists is exists}) for exists in (False, True))
    total, first = sum(map(len, found.values())), faults[0]
    line = first.where.rpartition(", ")[2]
    return (
        f"of {total} questions {missing} depend on something that is no question of their prompt, {circular} on "
        f"themselves, directly or in a circle; such parents are dropped, the first in {line}: {first.parent[:40]!r}"
    )
