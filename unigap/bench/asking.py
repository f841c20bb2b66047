"""Ask a judge many yes-no questions about several images, however many each image has."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges import Judge
from unigap.judges.answer_mass import check_mass
from unigap.judges.asked import AskedJudge
from unigap.models.base import UnifiedModel


def asked(judge: Judge) -> AskedJudge:
    """Return a judge that answers questions of others.

    Raises:
        ValueError: It does not, e.g. CLIP.
    """
    if not isinstance(judge, AskedJudge):
        raise ValueError(f"judge {judge.name!r} answers no questions; take SelfJudge, VQAJudge or OpenAIJudge")
    return judge


@torch.no_grad()
def ask_all(
    judge: AskedJudge, model: UnifiedModel, questions: Sequence[Sequence[str]], pixels_BCHW: torch.Tensor
) -> list[list[float]]:
    """Return the log-odds of yes to each question about each image.

    Args:
        judge: The judge.
        model: The model that sampled the images, which a self-judge asks.
        questions: The questions about each image; images may have different numbers of them.
        pixels_BCHW: The images, in [-1, 1].

    Raises:
        ValueError: The judge almost never answers yes or no.
    """
    owner_R = [i for i, texts in enumerate(questions) for _ in texts]
    answers = judge.ask_each(model, [[text] for texts in questions for text in texts], pixels_BCHW[owner_R])
    check_mass(judge.name, answers.mass.flatten())
    logits = iter(answers.logit.flatten().tolist())
    return [[next(logits) for _ in texts] for texts in questions]
