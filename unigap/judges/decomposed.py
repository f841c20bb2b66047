"""Decomposed self-judge: one question for each part of the prompt; all must be answered yes, or their share counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass, joined
from unigap.judges.described import Described
from unigap.judges.questions import Question, QuestionSource, all_hold, mean_holds
from unigap.models.base import Answers, UnifiedModel, evaluating
from unigap.models.engine.memory import BatchLimit, in_fitting_batches
from unigap.records import Candidate

# Shape legend: B images, Q questions an image.

Combine = Literal["all", "share"]
EDGE = 1e-6
"""Distance from 0 and 1 to which a share is moved, so that its log-odds are finite."""


class DecomposedJudge(AnsweringJudge):
    """Accepts an image if the model answers yes to every question about its prompt, as in DSG and TIFA.

    The log-odds are the lowest of all questions, with DSG's rule for questions that depend on others; see ``all_hold``.
    With ``combine: share`` the probability of yes is the expected share of the parts that the image shows, see
    ``mean_holds``: a graded reward for GRPO and NFT (``reward.further``), and as selecting judge one that accepts from
    a share of ``threshold`` on.

    Args:
        questions: Where the questions come from: ``PromptQuestions``, a ``QuestionFile``, or ``GrammarQuestions`` for
            the embedded world.
        batch_size: Most images in one forward pass; halved whenever the device runs out of memory.
        combine: ``all`` parts must be there, or the ``share`` of them counts.
    """

    # ``combine`` is in the name, and pools of earlier versions know nothing of it
    not_in_recipe = (*Described.not_in_recipe, "combine")

    def __init__(self, questions: QuestionSource, batch_size: int = 256, combine: Combine = "all") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if combine not in ("all", "share"):
            raise ValueError(f"unknown combine {combine!r}; choose one of: all, share")
        self.questions, self.batch_size, self.combine = questions, batch_size, combine
        self._limit = BatchLimit()

    @property
    def name(self) -> str:
        return "decomposed" if self.combine == "all" else "decomposed-share"

    def _combined(self, questions: Sequence[Question], logit_Q: Sequence[float]) -> float:
        if self.combine == "all":
            return all_hold(questions, logit_Q)
        share = min(max(mean_holds(questions, logit_Q), EDGE), 1 - EDGE)
        return math.log(share / (1 - share))

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
            prompt_logits = [self._combined(row, logit_Q[: len(row)]) for row, logit_Q in rows]
            return Answers(logit_BQ.new_tensor(prompt_logits), answers_BQ.mass.mean(1))

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            parts = list(in_fitting_batches(answer, len(questions), self.batch_size, too_large, self._limit))
        answers = joined(parts, pixels_BCHW)
        check_mass(self.name, answers.mass)
        return answers
