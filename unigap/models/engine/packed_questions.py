"""Several questions about one image in one row, each placed as if it came right behind the image, and their answers."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from unigap.models.base import Answers
from unigap.models.engine.attention import additive, run_trunk

# Shape legend: B rows, Q texts a row, P tokens of the image before them, T tokens of all texts of a row, S = P + T,
# A answer tokens, D hidden width, V words, C H W image channels and sides.


@dataclass(frozen=True)
class Packed:
    """Rows [image | text 1 | text 2 ... | padding].

    Attributes:
        ids_BT: The texts.
        segment_BS: 0 for the image, else the number of the text, -1 for padding.
        place_BS: Place of each token in its own text.
        end_BQ: Where in the row each text's last token stands.
    """

    ids_BT: torch.Tensor
    segment_BS: torch.Tensor
    place_BS: torch.Tensor
    end_BQ: torch.Tensor


def pack(image: int, texts_BQ: Sequence[Sequence[Sequence[int]]], pad: int, device: torch.device) -> Packed:
    """Lays texts out behind images.

    Args:
        image: P.
        texts_BQ: Ids of equally many texts for each image.
        pad: Id of padding.
        device: Where the tensors are to lie.
    """
    size = max(sum(map(len, row)) for row in texts_BQ)
    ids, segments, places, ends = [], [], [], []
    for row in texts_BQ:
        lengths = [len(text) for text in row]
        fill = size - sum(lengths)
        ids.append([*itertools.chain.from_iterable(row), *[pad] * fill])
        segments.append([0] * image + [i for i, length in enumerate(lengths, 1) for _ in range(length)] + [-1] * fill)
        places.append([*range(image), *(image + j for length in lengths for j in range(length)), *[0] * fill])
        ends.append([image - 1 + end for end in itertools.accumulate(lengths)])
    return Packed(*(torch.tensor(rows, device=device) for rows in (ids, segments, places, ends)))


def read_packed(llm: Any, embeds_BSD: torch.Tensor, rows: Packed) -> torch.Tensor:
    """Hidden states (B, S, D) of a trunk that reads from left to right; no text sees another.

    Args:
        llm: A transformers trunk.
        embeds_BSD: The rows as its input.
        rows: Where what stands in them.
    """
    if rows.end_BQ.shape[1] == 1:
        # nothing to keep apart, and the padding lies behind
        return run_trunk(llm, embeds_BSD).last_hidden_state
    same_BSS = rows.segment_BS[:, :, None] == rows.segment_BS[:, None, :]
    allowed_BSS = (same_BSS | (rows.segment_BS == 0)[:, None, :]).tril()
    bias_B1SS = additive(allowed_BSS[:, None], embeds_BSD.dtype)
    return run_trunk(llm, embeds_BSD, bias_B1SS, rows.place_BS).last_hidden_state


def answers(logits: torch.Tensor, yes: Sequence[int], no: Sequence[int]) -> Answers:
    """What logits of all words (..., V) say to a yes-no question.

    Args:
        logits: Of the first token of the answer, float32.
        yes: Ids of the forms of yes.
        no: Ids of the forms of no.
    """
    found = logits.detach()
    mass = (found[..., [*yes, *no]].logsumexp(-1) - found.logsumexp(-1)).exp()
    return Answers(logits[..., yes].logsumexp(-1) - logits[..., no].logsumexp(-1), mass)


class Asked(Protocol):
    """How a family is asked and answers, as token ids."""

    yes: list[int]
    no: list[int]

    def question_ids(self, question: str, /) -> list[int]:
        """Ids of a question up to the answer, behind what stands before every question: as a rule, the image."""

    def answer_ids(self, answer: str, /) -> list[int]:
        """An answer as the model gives it."""


class PackedReader(ABC):
    """The understanding half of a family that reads all questions about an image in one pass.

    Args:
        template: How it is asked.
        head: Hidden states to logits of words.
    """

    def __init__(self, template: Asked, head: nn.Module) -> None:
        self._asked, self._head = template, head

    @abstractmethod
    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the trunk once over [image | tail 1 | tail 2 ...], each tail blind to the others.

        Returns:
            Hidden states (B, S, D) and the position of each tail's last token (B, Q).
        """

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        """Answers to yes-no questions, (B, Q)."""
        tails_BQ = [[self._asked.question_ids(question) for question in row] for row in questions_BQ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails_BQ)
        rows_B1 = torch.arange(len(tails_BQ), device=hidden_BSD.device)[:, None]
        logits_BQV = self._head(hidden_BSD[rows_B1, ends_BQ]).float()
        return answers(logits_BQV, self._asked.yes, self._asked.no)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of answers (B, Q, A) and where they have tokens."""
        replies_BQ = [[self._asked.answer_ids(answer) for answer in row] for row in answers_BQ]
        tails_BQ = [
            [self._asked.question_ids(question) + reply for question, reply in zip(*rows, strict=True)]
            for rows in zip(questions_BQ, replies_BQ, strict=True)
        ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails_BQ)
        device = hidden_BSD.device
        length_BQ = torch.tensor([[len(reply) for reply in row] for row in replies_BQ], device=device)
        offset_A = torch.arange(int(length_BQ.max()), device=device)
        mask_BQA = offset_A < length_BQ[..., None]
        at_BQA = torch.where(mask_BQA, ends_BQ[..., None] - length_BQ[..., None] + offset_A, 0)
        target_BQA = torch.zeros_like(at_BQA)
        every = itertools.chain.from_iterable(itertools.chain.from_iterable(replies_BQ))
        target_BQA[mask_BQA] = torch.tensor(list(every), device=device)
        rows_B11 = torch.arange(len(tails_BQ), device=device)[:, None, None]
        logp_BQAV = self._head(hidden_BSD[rows_B11, at_BQA]).float().log_softmax(-1)
        return logp_BQAV.gather(-1, target_BQA[..., None])[..., 0].masked_fill(~mask_BQA, 0), mask_BQA
