"""Any of transformers' image-text-to-text models as a reader of images: one question about each, answered yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unigap.console.quiet import quiet_transformers
from unigap.files.images import to_image
from unigap.models.base import Answers
from unigap.models.engine.packed_questions import answers
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS, single_tokens
from unigap.models.files.pretrained import image_reader_from_folder

# Shape legend: B images, V words.


class ImageReader:
    """A pretrained model that reads images and draws none.

    Args:
        checkpoint: Folder or hub id in transformers' layout.
        dtype: One of ``PRECISIONS``.

    Raises:
        ValueError: The checkpoint is no such model, is damaged, or has no single word for yes or for no.
    """

    def __init__(self, checkpoint: str, dtype: str) -> None:
        self.net, self.processor = image_reader_from_folder(checkpoint, dtype)
        self.net.requires_grad_(False)
        # what comes first in the answer stands at the same place in every row only when the padding lies before it
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise ValueError(
                    f"checkpoint {checkpoint!r}: tokenizer_config.json names no pad_token and no eos_token; name one"
                )
            # any token will do: the attention mask says where it is padding
            tokenizer.pad_token = tokenizer.eos_token
        self.yes = single_tokens(self.processor.tokenizer, YES_FORMS, "yes")
        self.no = single_tokens(self.processor.tokenizer, NO_FORMS, "no")

    def to(self, device: str) -> ImageReader:
        """The same reader, on another device."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def answers(self, pixels_BCHW: torch.Tensor, questions: Sequence[str]) -> Answers:
        """Answers (B,) to yes-no questions, by the first token of what the model says.

        Args:
            pixels_BCHW: Images in [-1, 1].
            questions: One for each.
        """
        inputs = self._inputs(pixels_BCHW, questions).to(self.net.device, self.net.dtype)
        with quiet_transformers():
            # generate knows each family's positions and caches; the raw logits are those before any sampling option
            answer: Any = self.net.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        return answers(answer.logits[0].float(), self.yes, self.no)

    def _inputs(self, pixels_BCHW: torch.Tensor, questions: Sequence[str]) -> Any:
        chats = [self._chat(question) for question in questions]
        images = [[to_image(pixels_CHW)] for pixels_CHW in pixels_BCHW]
        first = self.processor.tokenizer.bos_token
        # a template that writes the first token itself leaves none for the tokenizer to write
        special = not (first and chats[0].startswith(first))
        return self.processor(text=chats, images=images, padding=True, add_special_tokens=special, return_tensors="pt")

    def _chat(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
