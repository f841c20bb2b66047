"""Base class of the chat templates: token ids of yes and no, cached ids, and texts that are refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from unigap.models.base import PromptBatch
from unigap.models.engine.tokens import (
    CACHED_TEXTS,
    NO_FORMS,
    YES_FORMS,
    check_text,
    ids_of,
    single_tokens,
    special_tokens,
)


def with_null_prompts(rows: Sequence[list[int]], null: list[int], pad: int, device: torch.device) -> PromptBatch:
    """Return left-padded prompts with the null prompt, which is shorter, padded to the same length."""
    # a prompt is at least one token longer than the null prompt
    size = max(map(len, rows))
    return PromptBatch(*left_padded(rows, size, pad, device), *left_padded([null] * len(rows), size, pad, device))


def left_padded(
    rows: Sequence[list[int]], size: int, pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (1 for tokens, 0 for padding), int64 (B, L).

    Args:
        rows: Token ids of B texts.
        size: L, at least the length of the longest row.
        pad: Id of the pad token.
        device: Device of the result.
    """
    ids_BL = torch.tensor([[pad] * (size - len(row)) + row for row in rows], device=device)
    mask_BL = torch.tensor([[0] * (size - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids_BL, mask_BL


class ChatTemplate(ABC):
    """Token ids of the prompts, questions and answers of one checkpoint.

    Args:
        tokenizer: Its tokenizer.
        context: Context length of the backbone, in tokens.

    Raises:
        ValueError: No form of yes, or of no, is a single token.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        self.yes = single_tokens(tokenizer, YES_FORMS, "yes")
        self.no = single_tokens(tokenizer, NO_FORMS, "no")
        self._marks = special_tokens(tokenizer)
        # prompts repeat with every candidate and epoch, and rendering takes longer than a small model's forward pass
        self.prompt_ids = lru_cache(CACHED_TEXTS)(self._checked_prompt_ids)
        self.question_ids = lru_cache(CACHED_TEXTS)(self._checked_question_ids)

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer: a leading space, the text, and the end-of-text token."""
        return [*ids_of(self.tokenizer, " " + answer), self.tokenizer.eos_token_id]

    def check_text(self, kind: str, text: str, ids: Sequence[int]) -> None:
        """Refuse a text with unknown words or special tokens of the template."""
        check_text(self.tokenizer, self._marks, kind, text, ids)

    @abstractmethod
    def _prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a prompt that is not empty.

        Raises:
            ValueError: The prompt has unknown words, or is too long for the context.
        """

    @abstractmethod
    def _question_ids(self, question: str) -> list[int]:
        """Return the ids of a question that is not empty: after the shared prefix, up to the answer.

        Raises:
            ValueError: The question has unknown words, or is too long for the context.
        """

    def _checked_prompt_ids(self, text: str) -> list[int]:
        if not text.strip():
            raise ValueError("empty prompt: there is nothing to generate; write a text or remove it")
        return self._prompt_ids(text)

    def _checked_question_ids(self, question: str) -> list[int]:
        if not question.strip():
            raise ValueError("empty question: there is nothing to answer; write a text")
        return self._question_ids(question)
