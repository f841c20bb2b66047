"""The model itself as judge, asked one question about each part of the prompt: all must be answered yes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass, joined
from unigap.judges.questions import QuestionSource, all_hold
from unigap.models.base import Answers, UnifiedModel, evaluating
from unigap.models.engine.memory import in_fitting_batches
from unigap.records import Candidate

# Shape legend: B images, Q questions an image.


class DecomposedJudge(AnsweringJudge):
    """Accepts a drawing when the model says yes to every question its prompt falls into, as in DSG and TIFA.

    The log-odds are those of the least sure question, see ``all_hold``; with DSG's rule for questions that depend on
    others.

    Args:
        questions: Where the questions come from: ``PromptQuestions``, a ``QuestionFile``, or ``GrammarQuestions`` for
            the embedded world.
        batch_size: Most images in one forward pass; fewer where the device has no memory for so many.
    """

    def __init__(self, questions: QuestionSource, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.questions, self.batch_size = questions, batch_size

    @property
    def name(self) -> str:
        return "decomposed"

    @torch.no_grad()
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        asked = [self.questions.questions(candidate.prompt) for candidate in candidates]

        def ask(batch: slice) -> Answers:
            # a pass asks every image equally often: one with fewer questions hears its first again
            most = max(map(len, asked[batch]))
            texts = [[q.text for q in (*row, *[row[0]] * (most - len(row)))] for row in asked[batch]]
            answers_BQ = model.judge_answers(pixels_BCHW[batch], texts)
            said_BQ = answers_BQ.logit
            whole = [all_hold(row, said[: len(row)]) for row, said in zip(asked[batch], said_BQ.tolist(), strict=True)]
            return Answers(said_BQ.new_tensor(whole), answers_BQ.mass.mean(1))

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            found = joined(list(in_fitting_batches(ask, len(asked), self.batch_size, too_large)), pixels_BCHW)
        check_mass(self.name, found.mass)
        return found
