"""Self-judge: ask the model's own understanding branch whether its image shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.answer_mass import check_mass, joined
from unigap.judges.asked import AskedJudge
from unigap.models.base import Answers, UnifiedModel, evaluating
from unigap.models.engine.memory import BatchLimit, in_fitting_batches
from unigap.records import Candidate

QUESTION = "Does this image describe {prompt}?"


class SelfJudge(AskedJudge):
    """Algorithm 1's judge, q(y) = "Does this image describe y?".

    Args:
        questions: Phrasings with a ``{prompt}`` in each; the log-odds are averaged over them.
        batch_size: Most images in one forward pass; halved whenever the device runs out of memory.
    """

    def __init__(self, questions: Sequence[str] = (QUESTION,), batch_size: int = 256) -> None:
        if not questions:
            raise ValueError("SelfJudge needs at least one question; leave it out for the paper's")
        for question in questions:
            if "{prompt}" not in question:
                raise ValueError(f"question {question!r} has no {{prompt}} to put the prompt in")
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.questions = tuple(questions)
        self.batch_size = batch_size
        self._limit = BatchLimit()

    @property
    def name(self) -> str:
        return "self"

    @torch.no_grad()
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        return self._answers(model, [candidate.prompt.text for candidate in candidates], pixels_BCHW)

    @torch.no_grad()
    def ask(self, model: UnifiedModel, texts: Sequence[str], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return log-odds that each image shows its text, float32 (B,)."""
        return self._answers(model, texts, pixels_BCHW).logit

    @torch.no_grad()
    def ask_each(
        self, model: UnifiedModel, questions_BQ: Sequence[Sequence[str]], pixels_BCHW: torch.Tensor
    ) -> Answers:
        def answer(batch: slice) -> Answers:
            return model.judge_answers(pixels_BCHW[batch], questions_BQ[batch])

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            parts = list(in_fitting_batches(answer, len(questions_BQ), self.batch_size, too_large, self._limit))
        return joined(parts, pixels_BCHW)

    def _answers(self, model: UnifiedModel, texts: Sequence[str], pixels_BCHW: torch.Tensor) -> Answers:
        questions = [[question.replace("{prompt}", text) for question in self.questions] for text in texts]
        answers_BQ = self.ask_each(model, questions, pixels_BCHW)
        answers = Answers(answers_BQ.logit.mean(-1), answers_BQ.mass.mean(-1)) if questions else answers_BQ
        check_mass(self.name, answers.mass)
        return answers
