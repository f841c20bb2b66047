"""Where the questions of a decomposed judge come from: the grammar of the embedded world, or a file."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from unigap.described import Described
from unigap.judges.self_judge import QUESTION
from unigap.records import Prompt
from unigap.shapes.grammar import RELATIONS, Description, parse

DSG = {"prompt": "item_id", "id": "proposition_id", "question": "question_natural_language", "parents": "dependency"}
"""The columns of a DSG file, by what we call them."""
REMEMBERED = 16_384
"""Most prompts whose questions are kept: a prompt comes back with each of its candidates."""


@dataclass(frozen=True)
class Question:
    """A yes/no question about a picture, to which yes is right where the picture shows what was asked.

    Attributes:
        id: Its name, unique among the questions of a prompt.
        text: What is asked.
        parents: Questions without whose yes this one means nothing: the colour of what is not there.
    """

    id: str
    text: str
    parents: tuple[str, ...] = ()


class QuestionSource(Described, ABC):
    """Knows which questions a prompt falls into."""

    @abstractmethod
    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        """The questions of a prompt, at least one.

        Raises:
            ValueError: There are none for it.
        """


class GrammarQuestions(QuestionSource):
    """A prompt of the embedded world, and what follows from it: one question for each attribute and relation.

    A description in this world is true of exactly its objects, so "a red circle" is false beside a second object, and
    cannot be asked about a part of a picture. What follows from a prompt are weaker descriptions of the whole picture:
    with one attribute left open, or the relation told from its other side. The model was pretrained on such wordings.
    The prompt itself is among the questions, because its parts do not say what belongs to what.
    """

    @property
    def name(self) -> str:
        return "grammar"

    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        return _grammar_questions(prompt.text)


@lru_cache(REMEMBERED)
def _grammar_questions(text: str) -> tuple[Question, ...]:
    wordings = dict.fromkeys([text, *(weaker.text for weaker in implied(parse(text)))])
    return tuple(Question(wording, QUESTION.replace("{prompt}", wording)) for wording in wordings)


def implied(description: Description) -> Iterator[Description]:
    """What is true wherever ``description`` is: each attribute left open in turn, and the relation turned round."""
    groups = description.groups
    for i, (count, thing) in enumerate(groups):
        for attribute in ("color", "size"):
            if getattr(thing, attribute):
                weaker = (count, replace(thing, **{attribute: ""}))
                yield replace(description, groups=(*groups[:i], weaker, *groups[i + 1 :]))
    if description.relation:
        yield Description(groups[::-1], RELATIONS[description.relation])


class QuestionFile(QuestionSource):
    """Questions from a file, for models and prompts of the real world.

    A ``.csv`` file is read as DSG publishes them: ``item_id``, ``proposition_id``, ``question_natural_language`` and
    ``dependency``, the ids of a question's parents, 0 for none. A ``.jsonl`` file holds objects with ``prompt`` (the
    prompt's id), ``id``, ``question`` and optionally ``parents``, a list of ids.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._of_prompt = _read(self.path)

    @property
    def name(self) -> str:
        return "file"

    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        if prompt.id not in self._of_prompt:
            raise ValueError(f"questions {str(self.path)!r}: none for prompt {prompt.id[:80]!r}; add them")
        return self._of_prompt[prompt.id]


def _read(path: Path) -> dict[str, tuple[Question, ...]]:
    where = f"questions {str(path)!r}"
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix not in readers or not path.is_file():
        raise ValueError(f"{where}: no such file; give a .csv file of DSG or a .jsonl file")
    found: dict[str, dict[str, Question]] = {}
    try:
        for line, prompt, question in readers[path.suffix](path):
            if not (prompt and question.id and question.text):
                raise ValueError(f"{where}, line {line}: needs the id of a prompt, an id and a question")
            if found.setdefault(prompt, {}).setdefault(question.id, question) is not question:
                raise ValueError(f"{where}, line {line}: prompt {prompt[:80]!r} has two questions {question.id[:80]!r}")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 at byte {error.start}; convert it") from error
    except (csv.Error, RecursionError) as error:
        raise ValueError(f"{where}: cannot be read ({str(error)[:80]}); repair it") from error
    if not found:
        raise ValueError(f"{where}: the file holds no question; add one a line")
    for prompt, questions in found.items():
        _check_parents(questions, f"{where}, prompt {prompt[:80]!r}")
    return {prompt: tuple(questions.values()) for prompt, questions in found.items()}


def _csv_rows(path: Path) -> Iterator[tuple[int, str, Question]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in DSG.values() if name not in (rows.fieldnames or ())]
        if missing:
            needed = ", ".join(DSG.values())
            raise ValueError(f"questions {str(path)!r}: has no column {missing[0]!r}; a DSG file has {needed}")
        for row in rows:
            cell = {ours: (row[theirs] or "").strip() for ours, theirs in DSG.items()}
            parents = [part.strip() for part in cell["parents"].split(",")]
            named = tuple(part for part in parents if part not in ("", "0"))
            yield rows.line_num, cell["prompt"], Question(cell["id"], cell["question"], named)


def _json_rows(path: Path) -> Iterator[tuple[int, str, Question]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"questions {str(path)!r}, line {number}: not JSON ({str(error)[:80]}); write one object a line"
                ) from error
            texts = [_text(row, name) for name in ("prompt", "id", "question")] if isinstance(row, dict) else [""] * 3
            parents = row.get("parents", []) if isinstance(row, dict) else []
            if not (isinstance(parents, list) and all(isinstance(parent, str) for parent in parents)):
                raise ValueError(f"questions {str(path)!r}, line {number}: 'parents' must be a list of ids; quote them")
            yield number, texts[0], Question(texts[1], texts[2], tuple(parents))


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else ""


def _check_parents(questions: dict[str, Question], where: str) -> None:
    for question in questions.values():
        stranger = next((parent for parent in question.parents if parent not in questions), None)
        if stranger is not None:
            raise ValueError(f"{where}: question {question.id!r} depends on {stranger!r}, which is not there; add it")
    left = dict(questions)
    while left:
        free = [name for name, question in left.items() if not left.keys() & {*question.parents}]
        if not free:
            raise ValueError(f"{where}: the questions {', '.join(sorted(left))[:80]} depend on one another in a circle")
        for name in free:
            del left[name]


def all_hold(questions: Sequence[Question], logit_Q: Sequence[float]) -> float:
    """Log-odds that every question is answered yes: those of the question whose yes is least sure.

    Questions about one picture stand or fall together far more than they vary on their own, so the least sure one
    bounds the whole, where a product would punish a prompt for having many parts. A question one of whose parents was
    answered no is left out, and so is what depends on it: what a model says of something that is not there means
    nothing, and the parent has already said no.

    Args:
        questions: The questions of one prompt; the dependencies run in no circle.
        logit_Q: Log-odds of yes of each.
    """
    void = {question.id for question, logit in zip(questions, logit_Q, strict=True) if logit < 0}
    asked = dict(zip(questions, logit_Q, strict=True))
    while True:
        kept = {question: logit for question, logit in asked.items() if void.isdisjoint(question.parents)}
        if len(kept) == len(asked):
            return min(kept.values())
        void |= {question.id for question in asked.keys() - kept.keys()}
        asked = kept
