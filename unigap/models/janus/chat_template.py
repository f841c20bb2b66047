"""What is said to a Janus, as token ids: prompts to draw, questions about an image, and the answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import shown


class JanusChatTemplate(ChatTemplate):
    """The chat template and the words of one checkpoint: the ids that its ``JanusProcessor`` builds.

    Questions begin with Janus's system prompt where the processor's ``use_default_system_prompt`` is on, as it is in
    the published checkpoints. Prompts never do.

    Args:
        processor: transformers' ``JanusProcessor``.
        context: Most tokens the trunk takes.

    Raises:
        ValueError: When yes or no is no single token.
    """

    def __init__(self, processor: Any, context: int) -> None:
        super().__init__(processor.tokenizer, context)
        self.processor = processor
        self._system = DEFAULT_SYSTEM_PROMPT if processor.use_default_system_prompt else ""

    @cached_property
    def image_prefix(self) -> list[int]:
        """Ids up to and with the end of the image, the same before every question."""
        return self._asked("?")[0]

    @cached_property
    def kept_in_null_prompt(self) -> tuple[int, int]:
        """The tokens that a null prompt of classifier-free guidance keeps: the first of all, and the image's start."""
        return self.tokenizer.bos_token_id, self._id(self.processor.image_start_token)

    def _prompt_ids(self, text: str) -> list[int]:
        """Ids up to and with the start of the image that is to be drawn.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """
        chat = self._chat([{"type": "text", "text": text}]) + self.processor.image_start_token
        ids = self.tokenizer(chat, verbose=False)["input_ids"]
        room = self.context - self.processor.num_image_tokens
        if len(ids) > room:
            raise ValueError(f"prompt {shown(text)}: {len(ids)} tokens with its template, the context holds {room}")
        self.check_words("prompt", text, ids)
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Ids between the end of the image and the answer.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """
        return self._asked(question)[1]

    def _asked(self, question: str) -> tuple[list[int], list[int]]:
        images = self.processor
        marks = images.image_start_token + images.image_token * images.num_image_tokens + images.image_end_token
        chat = self._system + self._chat([{"type": "image"}, {"type": "text", "text": question}])
        ids = self.tokenizer(chat.replace(images.image_token, marks), verbose=False)["input_ids"]
        self.check_words("question", question, ids)
        if len(ids) > self.context:
            raise ValueError(
                f"question {shown(question)}: {len(ids)} tokens with its image, the context holds {self.context}"
            )
        cut = ids.index(self._id(images.image_end_token)) + 1
        return ids[:cut], ids[cut:]

    def _chat(self, content: list[dict[str, str]]) -> str:
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)
