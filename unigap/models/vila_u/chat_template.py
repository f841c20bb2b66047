"""Token ids of VILA-U: prompts, questions about an image, and answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import ids_of, quoted

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
"""First sentences of every chat in VILA-U's published code (Vicuna's)."""
USER, ASSISTANT = "USER:", "ASSISTANT:"
IMAGE = "<image>"
"""Text that the authors' code replaces by an image; it is no token."""
IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"
MARKS = (IMAGE_START, IMAGE_END)
"""Tokens around an image that is generated."""


class VilaUChatTemplate(ChatTemplate):
    """Chat template of one checkpoint.

    The texts before and after an image are tokenized apart, as in the authors' code.

    Args:
        tokenizer: A transformers tokenizer with ``MARKS``.
        positions: Positions of an image.
        context: Context length of the language model, in tokens.

    Raises:
        ValueError: No form of yes, or of no, is a single token.
    """

    def __init__(self, tokenizer: Any, positions: int, context: int) -> None:
        super().__init__(tokenizer, context)
        self.positions = positions
        self._marks = (*self._marks, IMAGE)
        # padding is masked, so that any token pads
        self.pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @cached_property
    def null_prompt(self) -> list[int]:
        """Ids of the null prompt of classifier-free guidance: the chat without a text."""
        return self._chat_ids(f"{SYSTEM} {USER}{ASSISTANT} {IMAGE_START}")

    @cached_property
    def before_image(self) -> list[int]:
        """Ids before the image of a question."""
        return self._chat_ids(f"{SYSTEM} {USER} ")

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer, as it follows the chat, and the end-of-text token."""
        asked = ids_of(self.tokenizer, ASSISTANT)
        return [*ids_of(self.tokenizer, f"{ASSISTANT} {answer}")[len(asked) :], self.tokenizer.eos_token_id]

    def _prompt_ids(self, text: str) -> list[int]:
        """Return the ids up to and including the start of the image."""
        ids = self._chat_ids(f"{SYSTEM} {USER} {text.strip()} {ASSISTANT} {IMAGE_START}")
        self._check("prompt", text, ids, len(ids))
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Return the ids after the image."""
        ids = ids_of(self.tokenizer, f"\n{question.rstrip()} {ASSISTANT}")
        self._check("question", question, ids, len(self.before_image) + len(ids))
        return ids

    def _chat_ids(self, chat: str) -> list[int]:
        return [self.tokenizer.bos_token_id, *ids_of(self.tokenizer, chat)]

    def _check(self, kind: str, text: str, ids: list[int], tokens: int) -> None:
        self.check_text(kind, text, ids)
        limit = self.context - self.positions
        if tokens > limit:
            raise ValueError(f"{kind} {quoted(text)}: {tokens} tokens with its template, the context holds {limit}")
