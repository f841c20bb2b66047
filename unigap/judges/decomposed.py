"""Decomposed self-judge: one question for each part of the prompt, and all must be answered yes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass, joined
from unigap.judges.questions import QuestionSource, all_hold
from unigap.models.base import Answers, UnifiedModel, evaluating
from unigap.models.engine.memory import BatchLimit, in_fitting_batches
from unigap.records import Candidate

# Shape legend: B images, Q questions an image.


class DecomposedJudge(AnsweringJudge):
    """Accepts an image if the model answers yes to every question about its prompt, as in DSG and TIFA.

    The log-odds are the lowest of all questions, with DSG's rule for questions that depend on others; see ``all_hold``.

    Args:
        questions: Where the questions come from: ``PromptQuestions``, a ``QuestionFile``, or ``GrammarQuestions`` for
            the embedded world.
        batch_size: Most images in one forward pass; halved whenever the device runs out of memory.
    """

    def __init__(self, questions: QuestionSource, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.questions, self.batch_size = questions, batch_size
        self._limit = BatchLimit()

    @property
    def name(self) -> str:
        return "decomposed"

    @torch.no_grad()
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        questions = [self.questions.questions(candidate.prompt) for candidate in candidates]

        def answer(batch: slice) -> Answers:
            # a forward pass needs equally many questions for each image, so repeat the first as padding
            most = max(map(len, questions[batch]))
            texts = [[q.text for q in (*row, *[row[0]] * (most - len(row)))] for row in questions[batch]]
            answers_BQ = model.judge_answers(pixels_BCHW[batch], texts)
            logit_BQ = answers_BQ.logit
            rows = zip(questions[batch], logit_BQ.tolist(), strict=True)
            prompt_logits = [all_hold(row, logit_Q[: len(row)]) for row, logit_Q in rows]
            return Answers(logit_BQ.new_tensor(prompt_logits), answers_BQ.mass.mean(1))

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            parts = list(in_fitting_batches(answer, len(questions), self.batch_size, too_large, self._limit))
        answers = joined(parts, pixels_BCHW)
        check_mass(self.name, answers.mass)
        return answers
