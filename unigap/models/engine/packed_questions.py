"""Pack several questions about one image into one row, each positioned right after the image, and score answers."""

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

# Shape legend: B rows, Q texts a row, P tokens of the shared prefix, T tokens of all texts of a row, S = P + T,
# A answer tokens, D hidden width, V vocabulary, C H W image channels and sides.


@dataclass(frozen=True)
class Packed:
    """Rows [prefix | text 1 | text 2 ... | padding]; the prefix holds the image.

    Attributes:
        ids_BT: Token ids of the texts.
        segment_BS: 0 for the prefix, 1, 2, ... for the texts, -1 for padding.
        position_BS: Position of each token, as if its text alone followed the prefix.
        end_BQ: Index in the row of each text's last token.
    """

    ids_BT: torch.Tensor
    segment_BS: torch.Tensor
    position_BS: torch.Tensor
    end_BQ: torch.Tensor


def pack(prefix: int, texts_BQ: Sequence[Sequence[Sequence[int]]], pad: int, device: torch.device) -> Packed:
    """Pack the texts of each image into one row.

    Args:
        prefix: P.
        texts_BQ: Ids of Q texts for each image.
        pad: Id of the pad token.
        device: Device of the result.
    """
    size = max(sum(map(len, row)) for row in texts_BQ)
    ids, segments, position_rows, ends = [], [], [], []
    for row in texts_BQ:
        lengths = [len(text) for text in row]
        fill = size - sum(lengths)
        ids.append([*itertools.chain.from_iterable(row), *[pad] * fill])
        segments.append([0] * prefix + [i for i, length in enumerate(lengths, 1) for _ in range(length)] + [-1] * fill)
        position_rows.append([*range(prefix), *(prefix + j for length in lengths for j in range(length)), *[0] * fill])
        ends.append([prefix - 1 + end for end in itertools.accumulate(lengths)])
    return Packed(*(torch.tensor(rows, device=device) for rows in (ids, segments, position_rows, ends)))


def run_packed(llm: Any, embeds_BSD: torch.Tensor, rows: Packed) -> torch.Tensor:
    """Return the hidden states (B, S, D) of a causal backbone; no text attends to another.

    Args:
        llm: A transformers backbone.
        embeds_BSD: Input embeddings of the rows.
        rows: Layout of the rows.
    """
    if rows.end_BQ.shape[1] == 1:
        # a single text, with the padding after it, needs no mask
        return run_trunk(llm, embeds_BSD).last_hidden_state
    same_BSS = rows.segment_BS[:, :, None] == rows.segment_BS[:, None, :]
    allowed_BSS = (same_BSS | (rows.segment_BS == 0)[:, None, :]).tril()
    bias_B1SS = additive(allowed_BSS[:, None], embeds_BSD.dtype)
    return run_trunk(llm, embeds_BSD, bias_B1SS, rows.position_BS).last_hidden_state


def answers(logits: torch.Tensor, yes: Sequence[int], no: Sequence[int]) -> Answers:
    """Return the log-odds of yes over no, and the probability of both together.

    Args:
        logits: Logits (..., V) of the first answer token, float32.
        yes: Ids of the forms of yes.
        no: Ids of the forms of no.
    """
    detached = logits.detach()
    mass = (detached[..., [*yes, *no]].logsumexp(-1) - detached.logsumexp(-1)).exp()
    return Answers(logits[..., yes].logsumexp(-1) - logits[..., no].logsumexp(-1), mass)


class QuestionTemplate(Protocol):
    """Token ids of the questions and answers of a model family."""

    yes: list[int]
    no: list[int]

    def question_ids(self, question: str, /) -> list[int]:
        """Return the ids of a question: after the shared prefix (usually the image), up to the answer."""

    def answer_ids(self, answer: str, /) -> list[int]:
        """Return the ids of an answer, with the end-of-text token."""


class PackedUnderstanding(ABC):
    """Understanding branch of a family that answers all questions about an image in one forward pass.

    Args:
        template: Token ids of questions and answers.
        head: From hidden states to logits of the vocabulary.
    """

    def __init__(self, template: QuestionTemplate, head: nn.Module) -> None:
        self._template, self._head = template, head

    @abstractmethod
    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the backbone once over [prefix | tail 1 | tail 2 ...]; no tail attends to another.

        Returns:
            Hidden states (B, S, D) and the index of each tail's last token (B, Q).
        """

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        """Answer yes-no questions, (B, Q)."""
        tails_BQ = [[self._template.question_ids(question) for question in row] for row in questions_BQ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails_BQ)
        rows_B1 = torch.arange(len(tails_BQ), device=hidden_BSD.device)[:, None]
        logits_BQV = self._head(hidden_BSD[rows_B1, ends_BQ]).float()
        return answers(logits_BQV, self._template.yes, self._template.no)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probability of each answer token, 0 at padding, and the mask of the tokens; both (B, Q, A)."""
        replies_BQ = [[self._template.answer_ids(answer) for answer in row] for row in answers_BQ]
        tails_BQ = [
            [self._template.question_ids(question) + reply for question, reply in zip(*rows, strict=True)]
            for rows in zip(questions_BQ, replies_BQ, strict=True)
        ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails_BQ)
        device = hidden_BSD.device
        length_BQ = torch.tensor([[len(reply) for reply in row] for row in replies_BQ], device=device)
        offset_A = torch.arange(int(length_BQ.max()), device=device)
        mask_BQA = offset_A < length_BQ[..., None]
        at_BQA = torch.where(mask_BQA, ends_BQ[..., None] - length_BQ[..., None] + offset_A, 0)
        target_BQA = torch.zeros_like(at_BQA)
        token_ids = itertools.chain.from_iterable(itertools.chain.from_iterable(replies_BQ))
        target_BQA[mask_BQA] = torch.tensor(list(token_ids), device=device)
        rows_B11 = torch.arange(len(tails_BQ), device=device)[:, None, None]
        logp_BQAV = self._head(hidden_BSD[rows_B11, at_BQA]).float().log_softmax(-1)
        return logp_BQAV.gather(-1, target_BQA[..., None])[..., 0].masked_fill(~mask_BQA, 0), mask_BQA
