"""Rubric judge: weighted questions from a file, the same for every prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass
from unigap.judges.asked import AskedJudge
from unigap.models.base import Answers, UnifiedModel
from unigap.prompt_sets.rows import csv_rows, json_rows, read_text, refuse_unknown_keys, text_field
from unigap.records import Candidate

# Shape legend: B images, Q questions.

COLUMNS = ("question", "weight")


@dataclass(frozen=True)
class Criterion:
    """A question of a rubric.

    Attributes:
        question: The question; ``{prompt}`` stands for the prompt.
        weight: Its weight, not 0; negative if a no counts for the image.
    """

    question: str
    weight: float


class RubricJudge(AnsweringJudge):
    """Asks another judge several weighted questions about each image.

    The log-odds are the weighted mean of those of the questions, ``sum(w * logit) / sum(abs(w))``. They are 0 if the
    answers for and against the image balance, so a strong answer to one question can outweigh weak answers to others.
    For questions that must all hold, see ``DecomposedJudge``.

    Args:
        path: A ``.csv`` file with the columns ``question`` and ``weight``, or a ``.jsonl`` file of objects with these
            keys. ``{prompt}`` in a question stands for the prompt; one question at least must have it. A question
            with a negative weight counts for the image if it is answered no.
        judge: The judge that is asked, such as ``SelfJudge``, ``VQAJudge`` or ``OpenAIJudge``; its own question is not
            asked.
    """

    def __init__(self, path: str, judge: AskedJudge) -> None:
        self.path, self.judge = Path(path), judge
        self.criteria = read_rubric(path)

    @property
    def name(self) -> str:
        return f"rubric-{self.path.stem}-{self.judge.name}"

    @torch.no_grad()
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        if not candidates:
            return Answers(pixels_BCHW.new_zeros(0), pixels_BCHW.new_zeros(0))
        texts = [
            [c.question.replace("{prompt}", candidate.prompt.text) for c in self.criteria] for candidate in candidates
        ]
        answers_BQ = self.judge.ask_each(model, texts, pixels_BCHW)
        weight_Q = answers_BQ.logit.new_tensor([criterion.weight for criterion in self.criteria])
        logit_B = (answers_BQ.logit * weight_Q).sum(1) / weight_Q.abs().sum()
        answers = Answers(logit_B, answers_BQ.mass.mean(1))
        check_mass(self.name, answers.mass)
        return answers


def read_rubric(path: str) -> tuple[Criterion, ...]:
    """Read the questions of a rubric.

    Raises:
        ValueError: The file is missing or of another kind, a row is wrong, a question occurs twice, or none has the
            prompt in it.
    """
    named = f"rubric {path!r}"
    criteria: dict[str, Criterion] = {}
    for where, criterion in _rows(path, named):
        if criterion.question in criteria:
            raise ValueError(f"{where}: the question occurs twice; add up the weights")
        criteria[criterion.question] = criterion
    if not any("{prompt}" in question for question in criteria):
        raise ValueError(
            f"{named}: no question has a {{prompt}} in it, so none asks whether the image shows the prompt"
        )
    return tuple(criteria.values())


def _rows(path: str, named: str) -> Iterator[tuple[str, Criterion]]:
    text = read_text(path, (".csv", ".jsonl"), noun="rubric")
    if Path(path).suffix == ".csv":
        for where, cells in csv_rows(text, named, COLUMNS):
            yield where, Criterion(text_field(cells, "question", where), _weight(cells["weight"], where))
        return
    for where, row in json_rows(text, named, " with 'question' and 'weight'"):
        refuse_unknown_keys(row, COLUMNS, where)
        yield where, Criterion(text_field(row, "question", where), _weight(row.get("weight"), where))


def _weight(value: object, where: str) -> float:
    try:
        # a JSON true would count as 1
        weight = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        weight = 0.0
    if not math.isfinite(weight) or weight == 0:
        raise ValueError(f"{where}: 'weight' must be a number other than 0, got {str(value)[:40]!r}")
    return weight
