"""What every template has: the words for yes and no, ids that are kept, and texts that are refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from unigap.models.base import PromptBatch
from unigap.models.engine.tokens import (
    NO_FORMS,
    REMEMBERED,
    YES_FORMS,
    check_words,
    ids_of,
    single_tokens,
    special_words,
)


def with_null_prompts(rows: Sequence[list[int]], null: list[int], pad: int, device: torch.device) -> PromptBatch:
    """Prompts and, padded to the same length, a null prompt that is shorter than each of them: all left-padded."""
    # a prompt has at least a word more than the null prompt
    size = max(map(len, rows))
    return PromptBatch(*left_padded(rows, size, pad, device), *left_padded([null] * len(rows), size, pad, device))


def left_padded(
    rows: Sequence[list[int]], size: int, pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (1 for tokens, 0 for padding), int64 (B, L).

    Args:
        rows: Token ids of B texts.
        size: L, at least the longest of them.
        pad: Id of padding.
        device: Device of the result.
    """
    ids_BL = torch.tensor([[pad] * (size - len(row)) + row for row in rows], device=device)
    mask_BL = torch.tensor([[0] * (size - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids_BL, mask_BL


class ChatTemplate(ABC):
    """The templates and the words of one checkpoint.

    Args:
        tokenizer: Its tokenizer.
        context: Most tokens the trunk takes.

    Raises:
        ValueError: When yes or no is no single token.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        self.yes = single_tokens(tokenizer, YES_FORMS, "yes")
        self.no = single_tokens(tokenizer, NO_FORMS, "no")
        self._marks = special_words(tokenizer)
        # a prompt comes back with each of its candidates, and in each epoch; rendering a chat template takes longer
        # than a small model's own forward pass
        self.prompt_ids = lru_cache(REMEMBERED)(self._checked_prompt_ids)
        self.question_ids = lru_cache(REMEMBERED)(self._checked_question_ids)

    def answer_ids(self, answer: str) -> list[int]:
        """An answer as the model gives it: a leading space, and the end of the text."""
        return [*ids_of(self.tokenizer, " " + answer), self.tokenizer.eos_token_id]

    def check_words(self, what: str, text: str, ids: Sequence[int]) -> None:
        """Refuses a text of which the model would read something as nothing, or as a part of the template."""
        check_words(self.tokenizer, self._marks, what, text, ids)

    @abstractmethod
    def _prompt_ids(self, text: str) -> list[int]:
        """Ids of a prompt that is not empty.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """

    @abstractmethod
    def _question_ids(self, question: str) -> list[int]:
        """Ids up to the answer, behind what stands before every question, of a question that is not empty.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """

    def _checked_prompt_ids(self, text: str) -> list[int]:
        if not text.strip():
            raise ValueError("empty prompt: there is nothing to draw; give it a text or remove it")
        return self._prompt_ids(text)

    def _checked_question_ids(self, question: str) -> list[int]:
        if not question.strip():
            raise ValueError("empty question: there is nothing to answer; give it a text")
        return self._question_ids(question)
