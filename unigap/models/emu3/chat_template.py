"""Token ids of Emu3: prompts, questions about an image, and answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import quoted

SYSTEM = "You are a helpful assistant."
"""System message of every question in Emu3's published code."""


class Emu3ChatTemplate(ChatTemplate):
    """Chat template of one checkpoint.

    Emu3's published code asks ``You are a helpful assistant. USER: {image}{question}. ASSISTANT:``, with a full stop
    after any question. This class does the same if the chat template renders a system message as the bare sentence, as
    the published one does. With other templates, it adds neither the system message nor the full stop.

    Args:
        processor: transformers' ``Emu3Processor``.
        rows: Lines of an image.
        columns: Codes per line.
        context: Context length of the backbone, in tokens.

    Raises:
        ValueError: No form of yes, or of no, is a single token.
    """

    def __init__(self, processor: Any, rows: int, columns: int, context: int) -> None:
        super().__init__(processor.tokenizer, context)
        self.processor = processor
        self.pad, self.placeholder = processor.tokenizer.pad_token_id, processor.image_token_id
        size = [rows * processor.downsample_ratio, columns * processor.downsample_ratio]
        # start with the size as text, a placeholder for each code and each end of line, end
        self._image = processor.replace_image_token({"image_sizes": [size]}, 0)

    @cached_property
    def shared_prefix(self) -> list[int]:
        """Ids before every question: up to the end of the image if the template puts it first, else the first id."""
        first, second = self._question_chat_ids("?"), self._question_chat_ids(".")
        end = first.index(self.tokenizer.convert_tokens_to_ids(self.processor.image_end_token)) + 1
        return first[: end if first[:end] == second[:end] else 1]

    @cached_property
    def null_prompt(self) -> list[int]:
        """Ids of the null prompt of classifier-free guidance: the template without text."""
        return self._prompt_chat_ids("")

    def _prompt_ids(self, text: str) -> list[int]:
        """Return the ids up to and including the start of the image.

        Raises:
            ValueError: The prompt has unknown words, or is too long for the context.
        """
        ids = self._prompt_chat_ids(text)
        self.check_text("prompt", text, ids)
        limit = self.context - self._image.count(self.processor.image_token)
        if len(ids) > limit:
            raise ValueError(f"prompt {quoted(text)}: {len(ids)} tokens with its template, the context holds {limit}")
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Return the ids of a question after the shared prefix, with the image if the prefix does not hold it.

        Raises:
            ValueError: The question has unknown words or is too long for the context, or the chat template has no
                image.
        """
        ids = self._question_chat_ids(question)
        self.check_text("question", question, ids)
        if len(ids) > self.context:
            raise ValueError(
                f"question {quoted(question)}: {len(ids)} tokens with its image, the context holds {self.context}"
            )
        return ids[len(self.shared_prefix) :]

    def _prompt_chat_ids(self, text: str) -> list[int]:
        start = self._image.partition(self.processor.image_token)[0]
        return self.tokenizer(self.tokenizer.bos_token + text + start, verbose=False)["input_ids"]

    def _question_chat_ids(self, question: str) -> list[int]:
        """Return the ids of a question up to the answer, with placeholders for the codes and ends of lines."""
        chat = self._chat(question + ".", SYSTEM) if self._takes_system else self._chat(question)
        if self.processor.image_token not in chat:
            raise ValueError("the chat template has no image; give the checkpoint the template of Emu3-Chat")
        chat = self.tokenizer.bos_token + chat.replace(self.processor.image_token, self._image, 1)
        ids: list[int] = self.tokenizer(chat, verbose=False)["input_ids"]
        return ids

    def _chat(self, question: str, system: str = "") -> str:
        messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages.append({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]})
        chat: str = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return chat

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template renders a system message as Emu3's published code does."""
        try:
            return self._chat("?", SYSTEM) == f"{SYSTEM} {self._chat('?')}"
        except TemplateError:  # the template refuses system messages
            return False
