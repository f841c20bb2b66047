"""Ask any image-text-to-text model of transformers one yes-no question about each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unigap.console.quiet import quiet_transformers
from unigap.files.images import to_image
from unigap.models.base import Answers
from unigap.models.engine.packed_questions import answers
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS, single_tokens
from unigap.models.files.pretrained import check_image_reader, image_reader_from_folder

# Shape legend: B images, V vocabulary.


class ImageReader:
    """Pretrained model that understands images and generates none.

    Args:
        checkpoint: Folder or hub id in transformers' layout.
        dtype: One of ``PRECISIONS``.

    Raises:
        ValueError: The checkpoint is not such a model, is damaged, or has no single token for yes or for no.
    """

    def __init__(self, checkpoint: str, dtype: str) -> None:
        self.net, self.processor = image_reader_from_folder(checkpoint, dtype)
        self.net.requires_grad_(False)
        self.yes, self.no = _prepare(self.processor.tokenizer, checkpoint)

    @staticmethod
    def check(checkpoint: str) -> None:
        """Check a checkpoint without loading its weights.

        Raises:
            ValueError: As the constructor, as far as the config, the processor and the tokenizer show it.
        """
        _prepare(check_image_reader(checkpoint).tokenizer, checkpoint)

    def to(self, device: str) -> ImageReader:
        """Move the network to a device and return the reader."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def answers(self, pixels_BCHW: torch.Tensor, questions: Sequence[str]) -> Answers:
        """Answer yes-no questions, (B,), by the first token the model generates.

        Args:
            pixels_BCHW: Images in [-1, 1].
            questions: One per image.
        """
        inputs = self._inputs(pixels_BCHW, questions).to(self.net.device, self.net.dtype)
        with quiet_transformers():
            # generate handles each family's positions and caches; output_logits precede any sampling option
            answer: Any = self.net.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        return answers(answer.logits[0].float(), self.yes, self.no)

    def _inputs(self, pixels_BCHW: torch.Tensor, questions: Sequence[str]) -> Any:
        chats = [self._chat(question) for question in questions]
        images = [[to_image(pixels_CHW)] for pixels_CHW in pixels_BCHW]
        first = self.processor.tokenizer.bos_token
        # if the template writes the first token itself, the tokenizer must not add it again
        special = not (first and chats[0].startswith(first))
        return self.processor(text=chats, images=images, padding=True, add_special_tokens=special, return_tensors="pt")

    def _chat(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def _prepare(tokenizer: Any, checkpoint: str) -> tuple[list[int], list[int]]:
    """Set up padding; return the tokens that mean yes and those that mean no."""
    # left padding puts the first token of the answer at the same position in every row
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"checkpoint {checkpoint!r}: tokenizer_config.json names no pad_token and no eos_token; name one"
            )
        # any token works: the attention mask marks the padding
        tokenizer.pad_token = tokenizer.eos_token
    return single_tokens(tokenizer, YES_FORMS, "yes"), single_tokens(tokenizer, NO_FORMS, "no")
