"""Claims on which a model contradicts itself about its own images, labelled by its more confident answer."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from unigap.judges.self_judge import QUESTION
from unigap.models.base import UnifiedModel, evaluating
from unigap.objectives.base import RowBatch
from unigap.objectives.joint import Claims, ClaimSource
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.questions import implied

# Shape legend: I images, Q claims per image.


class Contradictions(ClaimSource):
    """Find images where the model answers yes to the prompt but no to a claim that the prompt implies.

    One of the two answers is wrong, and the more confident one becomes the label: a yes to the prompt makes the
    implied claim true, a no to the implied claim makes the prompt false. The grammar of the embedded world gives the
    implied claims (see ``GrammarQuestions``). No external judge is used.

    Args:
        images: Largest number of images of a batch that are questioned, >= 1.
    """

    def __init__(self, images: int = 16) -> None:
        if images < 1:
            raise ValueError(f"images must be >= 1, got {images}")
        self.images = images

    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims | None:
        """Return one claim for each image with a contradiction, or ``None`` if there is no contradiction."""
        chosen = rng.sample(range(len(batch.texts)), min(self.images, len(batch.texts)))
        pixels_ICHW = model.decode(batch.drawings_B[chosen])
        claims = [_claims(batch.texts[i]) for i in chosen]
        answers = zip(claims, _logits(model, pixels_ICHW, claims), strict=True)
        labelled = {i: label for i, answer in enumerate(answers) if (label := contradiction(*answer))}
        if not labelled:
            return None
        truth_I1 = torch.tensor([[float(true)] for _, true in labelled.values()], device=pixels_ICHW.device)
        return Claims(pixels_ICHW[list(labelled)], [[claim] for claim, _ in labelled.values()], truth_I1)


def contradiction(claims: Sequence[str], logit_Q: Sequence[float]) -> tuple[str, bool] | None:
    """Return the claim with the less confident answer and its truth if the other answer is right.

    Args:
        claims: A prompt, followed by the claims it implies.
        logit_Q: Log-odds of "yes" for each.

    Returns:
        ``None`` if the answers do not contradict each other.

    >>> contradiction(["a red circle", "a circle"], [2.0, -1.0])
    ('a circle', True)
    >>> contradiction(["a red circle", "a circle"], [1.0, -2.0])
    ('a red circle', False)
    >>> contradiction(["a red circle", "a circle"], [-1.0, 2.0]) is None
    True
    """
    least, claim = min(zip(logit_Q, claims, strict=True))
    if logit_Q[0] < 0 or least >= 0:
        return None
    return (claim, True) if logit_Q[0] > -least else (claims[0], False)


def _claims(text: str) -> list[str]:
    """Return a prompt, followed by the claims it implies, without duplicates."""
    return list(dict.fromkeys([text, *(weaker.text for weaker in implied(parse(text)))]))


@torch.no_grad()
def _logits(model: UnifiedModel, pixels_ICHW: torch.Tensor, claims: Sequence[Sequence[str]]) -> list[list[float]]:
    """Return log-odds of "yes" for the claims about each image; images may have different numbers of claims."""
    most = max(map(len, claims))
    # judge_logit takes the same number of questions per image, so repeat the first claim as padding
    asked = [[QUESTION.replace("{prompt}", c) for c in (*row, *[row[0]] * (most - len(row)))] for row in claims]
    with evaluating(model):
        logit_IQ = model.judge_logit(pixels_ICHW, asked)
    return [logits[: len(row)] for logits, row in zip(logit_IQ.tolist(), claims, strict=True)]
