"""Questions where a model contradicts itself about its own drawings, answered by whichever answer is the surer."""

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

# Shape legend: I images, Q claims an image.


class Contradictions(ClaimSource):
    """An image the model finds to show its prompt, but not something that follows from the prompt.

    One of the two answers is wrong. The surer one is believed: a yes to the prompt makes what follows true, a no to
    what follows makes the prompt false. What follows from a prompt is known in the language of the embedded world (see
    ``GrammarQuestions``); what an image shows, nobody says but the model.

    Args:
        images: At most this many images of a batch are looked at, >= 1.
    """

    def __init__(self, images: int = 16) -> None:
        if images < 1:
            raise ValueError(f"images must be >= 1, got {images}")
        self.images = images

    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims | None:
        """One claim for each image that is contradicted; ``None`` where none is."""
        chosen = rng.sample(range(len(batch.texts)), min(self.images, len(batch.texts)))
        pixels_ICHW = model.decode(batch.codes_BM[chosen])
        claims = [_claims(batch.texts[i]) for i in chosen]
        answered = zip(claims, _answers(model, pixels_ICHW, claims), strict=True)
        found = {i: wrong for i, row in enumerate(answered) if (wrong := contradiction(*row))}
        if not found:
            return None
        truth_I1 = torch.tensor([[float(true)] for _, true in found.values()], device=pixels_ICHW.device)
        return Claims(pixels_ICHW[list(found)], [[claim] for claim, _ in found.values()], truth_I1)


def contradiction(claims: Sequence[str], logit_Q: Sequence[float]) -> tuple[str, bool] | None:
    """The less sure side of a contradiction and whether it is true if the surer side is right; ``None`` without one.

    Args:
        claims: A prompt, and what follows from it.
        logit_Q: Log-odds of yes to each.

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
    """A prompt and what follows from it, if anything does."""
    return list(dict.fromkeys([text, *(weaker.text for weaker in implied(parse(text)))]))


@torch.no_grad()
def _answers(model: UnifiedModel, pixels_ICHW: torch.Tensor, claims: Sequence[Sequence[str]]) -> list[list[float]]:
    """Log-odds of yes to the claims about each image, of which there may be unequally many."""
    most = max(map(len, claims))
    # a pass asks every image equally often: one with fewer claims hears its first again
    asked = [[QUESTION.replace("{prompt}", c) for c in (*row, *[row[0]] * (most - len(row)))] for row in claims]
    with evaluating(model):
        said_IQ = model.judge_logit(pixels_ICHW, asked)
    return [said[: len(row)] for said, row in zip(said_IQ.tolist(), claims, strict=True)]
