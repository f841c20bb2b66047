"""TIFA: multiple-choice questions, answered by any judge of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unigap.bench.asking import ask_all, asked
from unigap.bench.base import Benchmark
from unigap.evaluation.scoring.tifa import tifa_questions
from unigap.judges import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

CHOICE = '{question} Is the answer "{choice}"? Please answer yes or no.'
YES_NO = {"yes", "no"}


class Tifa(Benchmark):
    """TIFA v1.0 (arXiv 2303.11897).

    Args:
        vqa: The judge that answers the questions, such as ``VQAJudge`` or ``OpenAIJudge``.
    """

    title = "TIFA"
    rule = "tifa"
    differs = (
        "The published judge writes an answer, and SBERT finds the nearest choice. Here the judge is asked about each "
        "choice, and the one with the highest log-odds of yes is its answer; a question with the choices yes and no is "
        "asked as it is."
    )

    def __init__(self, vqa: Judge) -> None:
        self.vqa = asked(vqa)

    @property
    def name(self) -> str:
        return f"tifa-{self.vqa.name}"

    def wanted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        for prompt in prompts:
            _questions(prompt)
        return list(prompts)

    def answer(
        self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor
    ) -> list[dict[str, Any]]:
        questions = [_questions(candidate.prompt) for candidate in candidates]
        texts = [[text for row in rows for text in texts_of(row)] for rows in questions]
        rows = zip(questions, ask_all(self.vqa, model, texts, pixels_BCHW), strict=True)
        return [{"answers": _choices(asked_about, logits)} for asked_about, logits in rows]


def texts_of(question: Mapping[str, Any]) -> list[str]:
    """Return what the judge is asked: the question if its choices are yes and no, else one text for each choice."""
    if set(question["choices"]) == YES_NO:
        return [question["question"]]
    return [CHOICE.format(question=question["question"], choice=choice) for choice in question["choices"]]


def chosen(question: Mapping[str, Any], logits: Sequence[float]) -> str:
    """Return the choice that the log-odds of `texts_of` speak for; of equal ones the first.

    >>> chosen({"choices": ["beach", "park"]}, [-1.0, 2.0]), chosen({"choices": ["yes", "no"]}, [-1.0])
    ('park', 'no')
    """
    if set(question["choices"]) == YES_NO:
        return "yes" if logits[0] >= 0 else "no"
    return str(question["choices"][max(range(len(logits)), key=logits.__getitem__)])


def _choices(questions: Sequence[Mapping[str, Any]], logits: Sequence[float]) -> dict[str, str]:
    answers, begin = {}, 0
    for number, question in enumerate(questions, 1):
        end = begin + len(texts_of(question))
        answers[str(number)] = chosen(question, logits[begin:end])
        begin = end
    return answers


def _questions(prompt: Prompt) -> list[dict[str, Any]]:
    questions = tifa_questions(json.loads(prompt.truth or "{}"), prompt.id)
    empty = next((question for question in questions if not question["choices"]), None)
    if empty:
        raise ValueError(f"prompt {prompt.id!r}: question {empty['question'][:60]!r} has no choices; add them")
    return questions
