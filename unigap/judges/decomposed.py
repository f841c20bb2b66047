"""The model itself as judge, asked one question about each part of the prompt: all must be answered yes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.base import Judge
from unigap.judges.questions import QuestionSource, all_hold
from unigap.memory import in_fitting_batches
from unigap.models.base import UnifiedModel, evaluating
from unigap.records import Candidate

# Shape legend: B images, Q questions an image.


class DecomposedJudge(Judge):
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
    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        asked = [self.questions.questions(candidate.prompt) for candidate in candidates]

        def ask(batch: slice) -> torch.Tensor:
            # a pass asks every image equally often: one with fewer questions hears its first again
            most = max(map(len, asked[batch]))
            texts = [[q.text for q in (*row, *[row[0]] * (most - len(row)))] for row in asked[batch]]
            said_BQ = model.judge_logit(pixels_BCHW[batch], texts)
            whole = [all_hold(row, said[: len(row)]) for row, said in zip(asked[batch], said_BQ.tolist(), strict=True)]
            return said_BQ.new_tensor(whole)

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            parts = list(in_fitting_batches(ask, len(asked), self.batch_size, too_large))
        return torch.cat(parts) if parts else pixels_BCHW.new_zeros(0)
