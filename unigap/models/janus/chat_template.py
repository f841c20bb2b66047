"""Token ids of Janus: prompts, questions about an image, and answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import quoted


class JanusChatTemplate(ChatTemplate):
    """Chat template of one checkpoint; builds the same ids as its ``JanusProcessor``.

    Questions begin with Janus's system prompt if the processor's ``use_default_system_prompt`` is on, as in the
    published checkpoints. Prompts never do.

    Args:
        processor: transformers' ``JanusProcessor``.
        context: Context length of the backbone, in tokens.

    Raises:
        ValueError: No form of yes, or of no, is a single token.
    """

    def __init__(self, processor: Any, context: int) -> None:
        super().__init__(processor.tokenizer, context)
        self.processor = processor
        self._system = DEFAULT_SYSTEM_PROMPT if processor.use_default_system_prompt else ""

    @cached_property
    def image_prefix(self) -> list[int]:
        """Ids up to and including the end-of-image token, equal for all questions."""
        return self._question_chat_ids("?")[0]

    @cached_property
    def kept_in_null_prompt(self) -> tuple[int, int]:
        """Ids that a null prompt of classifier-free guidance keeps: the first token and the start of the image."""
        return self.tokenizer.bos_token_id, self._id(self.processor.image_start_token)

    def _prompt_ids(self, text: str) -> list[int]:
        """Return the ids up to and including the start-of-image token.

        Raises:
            ValueError: The prompt has unknown words, or is too long for the context.
        """
        chat = self._chat([{"type": "text", "text": text}]) + self.processor.image_start_token
        ids = self.tokenizer(chat, verbose=False)["input_ids"]
        limit = self.context - self.processor.num_image_tokens
        if len(ids) > limit:
            raise ValueError(f"prompt {quoted(text)}: {len(ids)} tokens with its template, the context holds {limit}")
        self.check_text("prompt", text, ids)
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Return the ids between the end of the image and the answer.

        Raises:
            ValueError: The question has unknown words, or is too long for the context.
        """
        return self._question_chat_ids(question)[1]

    def _question_chat_ids(self, question: str) -> tuple[list[int], list[int]]:
        """Return the ids of a question about an image, split at the end of the image."""
        processor = self.processor
        image_tokens = processor.image_token * processor.num_image_tokens
        image = processor.image_start_token + image_tokens + processor.image_end_token
        chat = self._system + self._chat([{"type": "image"}, {"type": "text", "text": question}])
        ids = self.tokenizer(chat.replace(processor.image_token, image), verbose=False)["input_ids"]
        self.check_text("question", question, ids)
        if len(ids) > self.context:
            raise ValueError(
                f"question {quoted(question)}: {len(ids)} tokens with its image, the context holds {self.context}"
            )
        cut = ids.index(self._id(processor.image_end_token)) + 1
        return ids[:cut], ids[cut:]

    def _chat(self, content: list[dict[str, str]]) -> str:
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)
