"""Token ids of BAGEL: prompts, questions about an image, and answers."""

from __future__ import annotations

from typing import Any

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import ids_of, quoted, single_tokens

TEXT_START, TEXT_END, IMAGE_START, IMAGE_END = "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"
MARKS = (TEXT_START, TEXT_END, IMAGE_START, IMAGE_END)
"""Special tokens of Qwen2 that separate texts and images; there are no chat roles."""
YES, NO = ("Yes", "yes"), ("No", "no")
"""Forms of an answer; it follows its start token without a space."""


class BagelChatTemplate(ChatTemplate):
    """Chat template of one checkpoint.

    A prompt is its text between start and end. A question follows its image in the same way, and its answer begins with
    another start token.

    Args:
        tokenizer: A transformers tokenizer with the special tokens of Qwen2.
        context: Context length of the language model, in positions; an image takes one.

    Raises:
        ValueError: No form of yes, or of no, is a single token.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.text_start, self.text_end, self.image_start, self.image_end = tokenizer.convert_tokens_to_ids(list(MARKS))
        super().__init__(tokenizer, context)
        self.yes, self.no = single_tokens(tokenizer, YES, "yes"), single_tokens(tokenizer, NO, "no")
        # padding is masked, so that any token pads
        self.pad = self.text_end if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer and the end of the text."""
        return [*ids_of(self.tokenizer, answer), self.text_end]

    def _prompt_ids(self, text: str) -> list[int]:
        return self._between("prompt", text, 1)

    def _question_ids(self, question: str) -> list[int]:
        """Return the ids between the end of the image and the answer."""
        return [*self._between("question", question, 2), self.text_start]

    def _between(self, kind: str, text: str, others: int) -> list[int]:
        """Return a text between start and end, which must leave ``others`` positions of the context."""
        ids = [self.text_start, *ids_of(self.tokenizer, text), self.text_end]
        if len(ids) + others > self.context:
            raise ValueError(
                f"{kind} {quoted(text)}: {len(ids)} tokens with its template, the context holds {self.context - others}"
            )
        self.check_text(kind, text, ids)
        return ids
