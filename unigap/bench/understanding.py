"""Answers of a unified model to the questions of understanding benchmarks, by the likelihood of each possible answer.

The protocol of `UnifiedModel` writes no text. It scores answers, which is enough for questions with the answers yes and
no (POPE, MME) and for questions with lettered options (MMBench, SEED-Bench).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image

from unigap.files.images import check_side, to_pixels
from unigap.models.base import UnifiedModel, evaluating

OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s", re.MULTILINE)
ASKS_YES_NO = re.compile(
    r"\byes\b.{0,8}\bno\b|^\s*(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b",
    re.IGNORECASE | re.MULTILINE,
)


class Understanding:
    """Answer questions about images with a unified model.

    Args:
        model: The model.
        side: Side of the square to which images are padded and scaled, in pixels.
    """

    def __init__(self, model: UnifiedModel, side: int = 384) -> None:
        check_side(side)
        self.model, self.side = model, side

    def reply(self, images: Sequence[Image.Image], question: str) -> str:
        """Return the letter of the most likely option, or ``"Yes"`` or ``"No"``.

        Args:
            images: The image, exactly one.
            question: A question that has lettered options on lines of their own, or that asks for yes or no.

        Raises:
            ValueError: The question asks for other text, which the model cannot write, or there is not one image.
        """
        letters = options_in(question)
        if letters:
            logps = [self.logp(images, question, letter) for letter in letters]
            return letters[max(range(len(letters)), key=logps.__getitem__)]
        if not ASKS_YES_NO.search(question):
            raise ValueError(
                f"question {question[:60]!r} asks for text, and unified models here only score answers; take tasks of "
                "yes-no questions or lettered options, such as pope, mme or mmbench"
            )
        pixels_BCHW = self._pixels(images)
        with evaluating(self.model), torch.no_grad():
            logit = self.model.judge_logit(pixels_BCHW, [[question]]).item()
        return "Yes" if logit >= 0 else "No"

    def logp(self, images: Sequence[Image.Image], question: str, answer: str) -> float:
        """Return the log-probability of an answer, in nats.

        Raises:
            ValueError: The model has no `text_logps`, or there is not one image.
        """
        pixels_BCHW = self._pixels(images)
        with evaluating(self.model), torch.no_grad():
            logp_BQT, _ = self.model.text_logps(pixels_BCHW, [[question]], [[answer]])
        return logp_BQT.double().sum().item()

    def _pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        if len(images) != 1:
            raise ValueError(
                f"a question is about {len(images)} images, and the models here take one; take other tasks"
            )
        return to_pixels(images[0], self.side)[None].to(next(self.model.parameters()).device)


def options_in(question: str) -> list[str]:
    r"""Return the letters of the options of a question: A, B, ... without a gap; none if it has fewer than two.

    >>> options_in("What is it?\nA. a cat\nB. a dog\nAnswer with the letter.")
    ['A', 'B']
    """
    letters = list(dict.fromkeys(OPTION.findall(question)))
    wanted = [chr(ord("A") + i) for i in range(len(letters))]
    return letters if len(letters) > 1 and letters == wanted else []
