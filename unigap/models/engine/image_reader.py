"""Ask any image-text-to-text model of transformers about images: yes-no questions, and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unigap.console.quiet import quiet_transformers
from unigap.files.images import to_image
from unigap.models.base import Answers
from unigap.models.engine.packed_questions import answers
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS, single_tokens
from unigap.models.files.placement import Placement
from unigap.models.files.pretrained import check_image_reader, image_reader_from_folder

# Shape legend: B images, V vocabulary, T tokens.


class ImageReader:
    """Pretrained model that understands images and generates none.

    Args:
        checkpoint: Folder or hub id in transformers' layout.
        placement: Precision and devices of the weights.

    Raises:
        ValueError: The checkpoint is not such a model, is damaged, or has no single token for yes or for no.
    """

    def __init__(self, checkpoint: str, placement: Placement) -> None:
        self.net, self.processor = image_reader_from_folder(checkpoint, placement)
        self._movable = placement.movable
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
        """Move the network to a device, unless its placement is fixed, and return the reader."""
        if self._movable:
            self.net.to(device)
        return self

    @torch.no_grad()
    def answers(self, pixels_BCHW: torch.Tensor, chats: Sequence[Sequence[str]]) -> Answers:
        """Answer the yes-no question at the end of each chat, (B,), by the first token the model generates.

        Args:
            pixels_BCHW: Images in [-1, 1].
            chats: One per image: turns of the user and of the model alternately, the last the user's.
        """
        # output_logits precede any sampling option
        answer = self._generate(pixels_BCHW, chats, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        return answers(answer.logits[0].float(), self.yes, self.no)

    @torch.no_grad()
    def texts(
        self,
        pixels_BCHW: torch.Tensor,
        chats: Sequence[Sequence[str]],
        seeds: Sequence[int],
        temperature: float,
        max_tokens: int,
    ) -> list[str]:
        """Write the next turn of each chat.

        Args:
            pixels_BCHW: Images in [-1, 1].
            chats: One per image, as in ``answers``.
            seeds: One per image; a text depends on its own seed, not on the rest of the batch.
            temperature: Sampling temperature, >= 0; 0 is greedy.
            max_tokens: Most tokens of a text.
        """
        noise = [] if temperature == 0 else [GumbelNoise(seeds, temperature)]
        ids_BT = self._generate(pixels_BCHW, chats, max_new_tokens=max_tokens, logits_processor=noise, new_only=True)
        found: list[str] = self.processor.tokenizer.batch_decode(ids_BT, skip_special_tokens=True)
        return [text.strip() for text in found]

    def _generate(
        self, pixels_BCHW: torch.Tensor, chats: Sequence[Sequence[str]], new_only: bool = False, **options: Any
    ) -> Any:
        inputs = self._inputs(pixels_BCHW, chats).to(self.net.device, self.net.dtype)
        with quiet_transformers():
            # generate handles each family's positions and caches
            result: Any = self.net.generate(**inputs, do_sample=False, **options)
        return result[:, inputs["input_ids"].shape[1] :] if new_only else result

    def _inputs(self, pixels_BCHW: torch.Tensor, chats: Sequence[Sequence[str]]) -> Any:
        texts = [self._chat(turns) for turns in chats]
        images = [[to_image(pixels_CHW)] for pixels_CHW in pixels_BCHW]
        first = self.processor.tokenizer.bos_token
        # if the template writes the first token itself, the tokenizer must not add it again
        special = not (first and texts[0].startswith(first))
        return self.processor(text=texts, images=images, padding=True, add_special_tokens=special, return_tensors="pt")

    def _chat(self, turns: Sequence[str]) -> str:
        contents = [[{"type": "text", "text": turn}] for turn in turns]
        contents[0].insert(0, {"type": "image"})
        messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)


class GumbelNoise:
    """Logits processor that makes a greedy search sample: the largest logit plus Gumbel noise is an exact sample.

    Each row has a generator of its own, which ``generate`` does not offer.

    Args:
        seeds: One per row.
        temperature: Sampling temperature, > 0.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, ids_BT: torch.Tensor, logit_BV: torch.Tensor) -> torch.Tensor:
        """Return the logits, divided by the temperature, with noise."""
        size = logit_BV.shape[1]
        noise_BV = torch.stack([torch.empty(size).exponential_(generator=g) for g in self._generators])
        return logit_BV.float() / self.temperature - noise_BV.log().to(logit_BV.device)


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
