"""What is said to an Emu3, as token ids: prompts to draw, questions about an image, and the answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from unigap.models.engine.chat_template import ChatTemplate
from unigap.models.engine.tokens import shown

SYSTEM = "You are a helpful assistant."
"""How Emu3's own code begins every question."""


class Emu3ChatTemplate(ChatTemplate):
    """The templates and the words of one checkpoint.

    Emu3's own code asks ``You are a helpful assistant. USER: {image}{question}. ASSISTANT:``, with the full stop behind
    any question. So does this class where the chat template can say it: where it writes a system message as the bare
    sentence, as the published one does. Other templates are asked as they are, without system message and full stop.

    Args:
        processor: transformers' ``Emu3Processor``.
        rows: Lines of codes of an image.
        columns: Codes of a line.
        context: Most tokens the trunk takes.

    Raises:
        ValueError: When yes or no is no single token.
    """

    def __init__(self, processor: Any, rows: int, columns: int, context: int) -> None:
        super().__init__(processor.tokenizer, context)
        self.processor = processor
        self.pad, self.placeholder = processor.tokenizer.pad_token_id, processor.image_token_id
        size = [rows * processor.downsample_ratio, columns * processor.downsample_ratio]
        # its start with its size in words, a placeholder for each code and each end of a line, its end
        self._image = processor.replace_image_token({"image_sizes": [size]}, 0)

    @cached_property
    def shared_prefix(self) -> list[int]:
        """Ids before every question: up to the end of the image where the chat template shows it first, else one."""
        one, other = self._asked("?"), self._asked(".")
        end = one.index(self.tokenizer.convert_tokens_to_ids(self.processor.image_end_token)) + 1
        return one[: end if one[:end] == other[:end] else 1]

    @cached_property
    def null_prompt(self) -> list[int]:
        """The prompt of classifier-free guidance: the template with no text in it."""
        return self._drawing("")

    def _prompt_ids(self, text: str) -> list[int]:
        """Ids up to and with the start of the image that is to be drawn.

        Raises:
            ValueError: For one with unknown words, or too long for the context.
        """
        ids = self._drawing(text)
        self.check_words("prompt", text, ids)
        room = self.context - self._image.count(self.processor.image_token)
        if len(ids) > room:
            raise ValueError(f"prompt {shown(text)}: {len(ids)} tokens with its template, the context holds {room}")
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Ids of a question behind the shared prefix, with the image in them where that does not hold it.

        Raises:
            ValueError: For one with unknown words, or too long for the context; and for a chat template that shows no
                image.
        """
        ids = self._asked(question)
        self.check_words("question", question, ids)
        if len(ids) > self.context:
            raise ValueError(
                f"question {shown(question)}: {len(ids)} tokens with its image, the context holds {self.context}"
            )
        return ids[len(self.shared_prefix) :]

    def _drawing(self, text: str) -> list[int]:
        start = self._image.partition(self.processor.image_token)[0]
        return self.tokenizer(self.tokenizer.bos_token + text + start, verbose=False)["input_ids"]

    def _asked(self, question: str) -> list[int]:
        """A question about an image, whose codes and ends of lines are placeholders, up to the answer."""
        chat = self._chat(question + ".", SYSTEM) if self._takes_system else self._chat(question)
        if self.processor.image_token not in chat:
            raise ValueError("the chat template has no place for an image; give the checkpoint that of Emu3-Chat")
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
        """Whether the chat template writes a system message as Emu3's own code does."""
        try:
            return self._chat("?", SYSTEM) == f"{SYSTEM} {self._chat('?')}"
        except TemplateError:  # raised by a template that refuses system messages
            return False
