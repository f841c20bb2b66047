"""Token ids of Show-o: prompts, questions about an image, and answers."""

from __future__ import annotations

from typing import Any

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import ids_of, quoted

PAD, IMAGE_START, IMAGE_END, TEXT_TO_IMAGE, UNDERSTANDING = "[PAD]", "<|soi|>", "<|eoi|>", "<|t2i|>", "<|mmu|>"
MARKS = (IMAGE_START, IMAGE_END, "<|sov|>", "<|eov|>", TEXT_TO_IMAGE, UNDERSTANDING, "<|t2v|>", "<|v2v|>", "<|lvg|>")
"""Special tokens that Show-o adds to its language model's vocabulary, in the order of their ids."""
QUESTION = "USER: \n{question} ASSISTANT:"
"""Template of a question to Show-o."""


def with_marks(tokenizer: Any) -> Any:
    """Add Show-o's special tokens to the tokenizer of a language model, in place, and return it."""
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKS)}, replace_extra_special_tokens=False)
    return tokenizer


class ShowOChatTemplate(ChatTemplate):
    """Chat template of one checkpoint.

    Args:
        tokenizer: A transformers tokenizer with Show-o's special tokens.
        template: Template of a question, with the field ``{question}``.
        image_tokens: M.
        context: Context length of the backbone, in tokens.

    Raises:
        ValueError: A special token is missing, or no form of yes, or of no, is a single token.
    """

    def __init__(self, tokenizer: Any, template: str, image_tokens: int, context: int) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.image_tokens, self.pad = image_tokens, tokenizer.pad_token_id
        self.image_start, self.image_end, self.text_to_image, self.understanding = map(
            self._id, (IMAGE_START, IMAGE_END, TEXT_TO_IMAGE, UNDERSTANDING)
        )
        super().__init__(tokenizer, context)

    @property
    def null_prompt(self) -> list[int]:
        """Ids of the null prompt of classifier-free guidance: Show-o's template without text."""
        return [self.text_to_image, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]

    def _prompt_ids(self, text: str) -> list[int]:
        """Return the ids up to the image, without its start.

        Raises:
            ValueError: The prompt has unknown words, or is too long for the context.
        """
        text_to_image, first, last = self.null_prompt
        ids = [text_to_image, first, *self._known_ids("prompt", text), last]
        self._check_length("prompt", text, len(ids))
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Return the ids between the end of the image and the answer.

        Raises:
            ValueError: The question has unknown words, or is too long for the context.
        """
        self._known_ids("question", question)
        ids = [self.tokenizer.bos_token_id, *ids_of(self.tokenizer, self.template.replace("{question}", question))]
        self._check_length("question", question, len(ids) + 1)
        return ids

    def _check_length(self, kind: str, text: str, length: int) -> None:
        limit = self.context - self.image_tokens - 2
        if length > limit:
            raise ValueError(f"{kind} {quoted(text)}: {length} tokens with its template, the context holds {limit}")

    def _known_ids(self, kind: str, text: str) -> list[int]:
        """Return the ids of a text without special tokens and unknown words; refuse other texts."""
        ids = ids_of(self.tokenizer, text)
        self.check_text(kind, text, ids)
        return ids

    def _id(self, mark: str) -> int:
        token_id = self.tokenizer.get_vocab().get(mark)
        if token_id is None:
            raise ValueError(f"the tokenizer has no special token {mark!r}; this checkpoint is not a Show-o")
        return token_id
