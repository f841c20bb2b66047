"""DSG-1k and DPG-Bench: yes-no questions that depend on each other, answered by any judge of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from unigap.bench.asking import ask_all, asked
from unigap.bench.base import Benchmark
from unigap.judges import Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt


class QuestionBenchmark(Benchmark):
    """A benchmark of DSG's form.

    Args:
        vqa: The judge that answers the questions, such as ``VQAJudge`` or ``OpenAIJudge``.
    """

    rule = "dsg"
    source: str
    """Name of the prompt source, for messages."""

    def __init__(self, vqa: Judge) -> None:
        self.vqa = asked(vqa)

    @property
    def name(self) -> str:
        return f"{self.source}-{self.vqa.name}"

    def wanted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        for prompt in prompts:
            _questions(prompt, self.source)
        return list(prompts)

    def answer(
        self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor
    ) -> list[dict[str, Any]]:
        questions = [_questions(candidate.prompt, self.source) for candidate in candidates]
        logits = ask_all(self.vqa, model, [[row["question"] for row in rows] for rows in questions], pixels_BCHW)
        return [
            {"answers": {str(row["id"]): "yes" if logit >= 0 else "no" for row, logit in zip(rows, given, strict=True)}}
            for rows, given in zip(questions, logits, strict=True)
        ]


class Dsg(QuestionBenchmark):
    """DSG-1k (arXiv 2310.18235).

    Args:
        vqa: The judge that answers the questions, such as ``VQAJudge`` or ``OpenAIJudge``.
    """

    title, source = "DSG-1k", "dsg"
    differs = (
        "The published judge is PaLI-17B or mPLUG-large, which writes an answer. Here a judge says yes if yes is "
        "at least as probable as no. A question counts 0 if one of its parents was answered no, as published."
    )


class DpgBench(QuestionBenchmark):
    """DPG-Bench (arXiv 2403.05135).

    Args:
        vqa: The judge that answers the questions, such as ``VQAJudge`` or ``OpenAIJudge``.
        as_published: Compute the figures with the faults of the published program, to compare with published figures.
    """

    title, source = "DPG-Bench", "dpg"
    differs = (
        "The published judge is mPLUG-large, which writes an answer. Here a judge says yes if yes is at least as "
        "probable as no. The published program skips the first row of the file and counts kinds of questions from the "
        "last image; --as_published true repeats that."
    )

    def __init__(self, vqa: Judge, as_published: bool = False) -> None:
        super().__init__(vqa)
        self.as_published = as_published

    @property
    def scored_by(self) -> str:
        return "dpg-as-published" if self.as_published else self.rule


def _questions(prompt: Prompt, source: str) -> list[dict[str, Any]]:
    questions: list[dict[str, Any]] = json.loads(prompt.truth or "{}").get("questions", [])
    if not questions or "parents" not in questions[0]:
        raise ValueError(f"prompt {prompt.id!r} has no DSG questions; give --prompts {source}:FILE.csv")
    return questions
