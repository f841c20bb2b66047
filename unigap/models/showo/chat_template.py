"""What is said to a Show-o, as token ids: prompts to draw, questions about an image, and the answers."""

from __future__ import annotations

from typing import Any

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import ids_of, shown

PAD, IMAGE_START, IMAGE_END, DRAW, READ = "[PAD]", "<|soi|>", "<|eoi|>", "<|t2i|>", "<|mmu|>"
MARKS = (IMAGE_START, IMAGE_END, "<|sov|>", "<|eov|>", DRAW, READ, "<|t2v|>", "<|v2v|>", "<|lvg|>")
"""What Show-o adds to its language model's words, in the order of their ids."""
QUESTION = "USER: \n{question} ASSISTANT:"
"""How Show-o is asked."""


def with_marks(tokenizer: Any) -> Any:
    """The tokenizer of a language model, with Show-o's marks behind its words; it is changed in place."""
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKS)}, replace_extra_special_tokens=False)
    return tokenizer


class ShowOChatTemplate(ChatTemplate):
    """The templates and the words of one checkpoint.

    Args:
        tokenizer: A transformers tokenizer with Show-o's marks.
        template: What is said to ask a question, with ``{question}`` in it.
        image_tokens: M.
        context: Most tokens the trunk takes.

    Raises:
        ValueError: A mark is missing, or yes or no is no single token.
    """

    def __init__(self, tokenizer: Any, template: str, image_tokens: int, context: int) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.image_tokens, self.pad = image_tokens, tokenizer.pad_token_id
        self.image_start, self.image_end, self.draw, self.read = map(self._id, (IMAGE_START, IMAGE_END, DRAW, READ))
        super().__init__(tokenizer, context)

    @property
    def null_prompt(self) -> list[int]:
        """The prompt of classifier-free guidance: Show-o's template with no text in it."""
        return [self.draw, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]

    def _prompt_ids(self, text: str) -> list[int]:
        """Ids up to the image that is to be drawn, without its start.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """
        draw, first, last = self.null_prompt
        ids = [draw, first, *self._known_ids("prompt", text), last]
        self._check_length("prompt", text, len(ids))
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Ids between the end of the image and the answer.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """
        self._known_ids("question", question)
        ids = [self.tokenizer.bos_token_id, *ids_of(self.tokenizer, self.template.replace("{question}", question))]
        self._check_length("question", question, len(ids) + 1)
        return ids

    def _check_length(self, what: str, text: str, length: int) -> None:
        room = self.context - self.image_tokens - 2
        if length > room:
            raise ValueError(f"{what} {shown(text)}: {length} tokens with its template, the context holds {room}")

    def _known_ids(self, what: str, text: str) -> list[int]:
        """Ids of a text, of which the model reads nothing as a part of the template and no word as nothing."""
        ids = ids_of(self.tokenizer, text)
        self.check_words(what, text, ids)
        return ids

    def _id(self, mark: str) -> int:
        found = self.tokenizer.get_vocab().get(mark)
        if found is None:
            raise ValueError(f"the tokenizer has no mark {mark!r}; this checkpoint is no Show-o")
        return found
