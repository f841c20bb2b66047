"""What is said to a Janus, as token ids: prompts to draw, questions about an image, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

YES_FORMS = ("Yes", " Yes", "yes", " yes")
NO_FORMS = ("No", " No", "no", " no")
REMEMBERED = 16_384
"""Most texts whose ids are kept: a prompt comes back with each of its candidates, and in each epoch."""


class JanusDialogue:
    """The chat template and the words of one checkpoint.

    Args:
        processor: transformers' ``JanusProcessor``.
        context: Most tokens the trunk takes.

    Raises:
        ValueError: When yes or no is no single token.
    """

    def __init__(self, processor: Any, context: int) -> None:
        self.processor, self.tokenizer, self.context = processor, processor.tokenizer, context
        self.yes = single_tokens(self.tokenizer, YES_FORMS, "yes")
        self.no = single_tokens(self.tokenizer, NO_FORMS, "no")
        self._marks = tuple(t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special)
        # rendering a chat template takes longer than a small model's own forward pass
        self.prompt_ids = lru_cache(REMEMBERED)(self._prompt_ids)
        self.question_ids = lru_cache(REMEMBERED)(self._question_ids)

    @cached_property
    def image_prefix(self) -> list[int]:
        """Ids up to and with the end of the image, the same before every question."""
        return self._asked("?")[0]

    @cached_property
    def kept_in_null_prompt(self) -> tuple[int, int]:
        """The tokens that a null prompt of classifier-free guidance keeps: the first of all, and the image's start."""
        return self.tokenizer.bos_token_id, self._id(self.processor.image_start_token)

    def answer_ids(self, answer: str) -> list[int]:
        """An answer as the model gives it: a leading space, and the end of the turn."""
        return [*self._ids(" " + answer), self.tokenizer.eos_token_id]

    def _prompt_ids(self, text: str) -> list[int]:
        """Ids up to and with the start of the image that is to be drawn.

        Raises:
            ValueError: For an empty prompt, one with unknown words, or one too long for the context.
        """
        if not text.strip():
            raise ValueError("empty prompt: there is nothing to draw; give it a text or remove it")
        chat = self._chat([{"type": "text", "text": text}]) + self.processor.image_start_token
        ids = self.tokenizer(chat, verbose=False)["input_ids"]
        room = self.context - self.processor.num_image_tokens
        if len(ids) > room:
            raise ValueError(f"prompt {_shown(text)}: {len(ids)} tokens with its template, the context holds {room}")
        self._check_words("prompt", text, ids)
        return ids

    def _question_ids(self, question: str) -> list[int]:
        """Ids between the end of the image and the answer.

        Raises:
            ValueError: For an empty question, one with unknown words, or one too long for the context.
        """
        return self._asked(question)[1]

    def _asked(self, question: str) -> tuple[list[int], list[int]]:
        if not question.strip():
            raise ValueError("empty question: there is nothing to answer; give it a text")
        images = self.processor
        marks = images.image_start_token + images.image_token * images.num_image_tokens + images.image_end_token
        chat = self._chat([{"type": "image"}, {"type": "text", "text": question}])
        ids = self.tokenizer(chat.replace(images.image_token, marks), verbose=False)["input_ids"]
        self._check_words("question", question, ids)
        if len(ids) > self.context:
            raise ValueError(
                f"question {_shown(question)}: {len(ids)} tokens with its image, the context holds {self.context}"
            )
        cut = ids.index(self._id(images.image_end_token)) + 1
        return ids[:cut], ids[cut:]

    def _check_words(self, what: str, text: str, ids: Sequence[int]) -> None:
        """Refuses what the model would read as nothing, or as a part of the template."""
        for mark in self._marks:
            if mark in text:
                raise ValueError(f"{what} {_shown(text)}: {mark!r} is a mark of the model's template; remove it")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            # where no word is unknown, it is a character between two words
            parts = (*text.split(), *(char for char in text if not char.isalnum()))
            word = next((part for part in parts if unknown in self._ids(part)), text)
            raise ValueError(f"{what} {_shown(text)}: the model has no word {_shown(word)}; reword it")

    def _chat(self, content: list[dict[str, str]]) -> str:
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)


def single_tokens(tokenizer: Any, forms: Sequence[str], name: str) -> list[int]:
    """Ids of the forms of a word that are one token each, sorted.

    Raises:
        ValueError: There is none.
    """
    ids = {ids[0] for form in forms if len(ids := tokenizer(form, add_special_tokens=False)["input_ids"]) == 1}
    ids.discard(tokenizer.unk_token_id)
    if not ids:
        raise ValueError(f"the tokenizer has no single token for {name!r}; this checkpoint cannot judge")
    return sorted(ids)


def _shown(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
