"""Self-judge: ask the model's own understanding branch whether its image shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass, joined
from unigap.models.base import Answers, UnifiedModel, evaluating
from unigap.models.engine.memory import in_fitting_batches
from unigap.records import Candidate

QUESTION = "Does this image describe {prompt}?"


class SelfJudge(AnsweringJudge):
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

    def _answers(self, model: UnifiedModel, texts: Sequence[str], pixels_BCHW: torch.Tensor) -> Answers:
        questions = [[question.replace("{prompt}", text) for question in self.questions] for text in texts]

        def answer(batch: slice) -> Answers:
            answers = model.judge_answers(pixels_BCHW[batch], questions[batch])
            return Answers(answers.logit.mean(1), answers.mass.mean(1))

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            answers = joined(list(in_fitting_batches(answer, len(questions), self.batch_size, too_large)), pixels_BCHW)
        check_mass(self.name, answers.mass)
        return answers
