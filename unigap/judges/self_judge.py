"""The model itself as judge: its understanding branch is asked whether its drawing is what the prompt says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.base import Judge
from unigap.memory import in_fitting_batches
from unigap.models.base import UnifiedModel, evaluating
from unigap.records import Candidate

QUESTION = "Does this image describe {prompt}?"


class SelfJudge(Judge):
    """Algorithm 1's judge, q(y) = "Does this image describe y?".

    Args:
        questions: Phrasings with a ``{prompt}`` in each; the log-odds are averaged over them.
        batch_size: Most images in one forward pass; fewer where the device has no memory for so many.
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
    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        texts = [candidate.prompt.text for candidate in candidates]
        return self.ask(model, texts, pixels_BCHW)

    @torch.no_grad()
    def ask(self, model: UnifiedModel, texts: Sequence[str], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Log-odds that each image shows its text, float32 (B,)."""
        asked = [[question.replace("{prompt}", text) for question in self.questions] for text in texts]

        def ask(batch: slice) -> torch.Tensor:
            return model.judge_logit(pixels_BCHW[batch], asked[batch]).mean(1)

        too_large = "one image with its questions does not fit; ask fewer questions, or free memory on the device"
        with evaluating(model):
            parts = list(in_fitting_batches(ask, len(asked), self.batch_size, too_large))
        return torch.cat(parts) if parts else pixels_BCHW.new_zeros(0)
