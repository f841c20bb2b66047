"""Judges that answer any question about an image, so that other judges can ask them theirs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unigap.judges.answer_mass import AnsweringJudge
from unigap.models.base import Answers, UnifiedModel

# Shape legend: B images, Q questions an image, K explanations an image.

Chat = tuple[str, ...]
"""Turns of the user and of the model alternately; the first, which follows the image, and the last are the user's."""


@dataclass(frozen=True)
class Writing:
    """How text is written.

    Attributes:
        samples: K, texts for each image, >= 1.
        temperature: Sampling temperature, >= 0; 0 is greedy.
        max_tokens: Most tokens of a text, >= 1.
    """

    samples: int
    temperature: float
    max_tokens: int


class AskedJudge(AnsweringJudge):
    """A judge that also answers yes-no questions of others."""

    @abstractmethod
    def ask_each(
        self, model: UnifiedModel, questions_BQ: Sequence[Sequence[str]], pixels_BCHW: torch.Tensor
    ) -> Answers:
        """Answer Q yes-no questions about each image, each as if it were asked alone, (B, Q)."""


class ExplainingJudge(AskedJudge):
    """A judge that also writes text about an image.

    The model under training is none: its protocol scores answers and generates images, but writes no text.
    """

    @abstractmethod
    def explain(
        self, model: UnifiedModel, requests: Sequence[str], pixels_BCHW: torch.Tensor, how: Writing
    ) -> list[list[str]]:
        """Write K texts for each of B images, as its request asks; the same request gets the same texts."""

    @abstractmethod
    def ask_after(self, model: UnifiedModel, chats_BK: Sequence[Sequence[Chat]], pixels_BCHW: torch.Tensor) -> Answers:
        """Answer the yes-no question at the end of each chat, (B, K)."""
