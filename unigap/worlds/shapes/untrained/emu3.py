"""An untrained Emu3 of transformers, with text and image codes in one vocabulary, and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    Emu3TextConfig,
    Emu3VQVAEConfig,
    PreTrainedTokenizerFast,
)

from unigap.models.emu3 import Emu3
from unigap.models.emu3.image_tokenizer import Emu3ImageTokenizer
from unigap.worlds.shapes.grammar import WORDS
from unigap.worlds.shapes.scenes import IMAGE_SIZE
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer
from unigap.worlds.shapes.tokenizer_training.named_codes import NamedCodes
from unigap.worlds.shapes.untrained.base import UntrainedModel
from unigap.worlds.shapes.untrained.initial_scale import spread_linears, spread_words
from unigap.worlds.shapes.untrained.words import SPEECH, UNK, word_tokenizer

PAD, BOS, EOS = "<|endoftext|>", "<|extra_203|>", "<|extra_204|>"
LINE_END, FRAME_END = "<|extra_200|>", "<|extra_201|>"
IMAGE, IMAGE_START, IMAGE_END, WRAPPER = "<image>", "<|image start|>", "<|image end|>", "<|image token|>"
CODE = "<|visual token {:06d}|>"
"""Emu3's token of an image code."""
_MARKS = (PAD, BOS, EOS, UNK, LINE_END, FRAME_END, IMAGE, IMAGE_START, IMAGE_END, WRAPPER)
_SIZES_AND_SPEAKERS = (*"0123456789*", "user", "assistant")
_IMAGE_PART = "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
_TEXT_PART = "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"


class UntrainedEmu3(UntrainedModel):
    """An Emu3 of about 2.4 M parameters.

    Args:
        hidden_size: Width of the shared LLM.
        layers: Number of layers of the shared LLM.
        n_codes: Size of the image vocabulary.
        question_first: Put the image after the question, as in generation, where the image follows its prompt.
    """

    def __init__(
        self, hidden_size: int = 128, layers: int = 4, n_codes: int = 256, question_first: bool = False
    ) -> None:
        super().__init__(hidden_size, layers, n_codes)
        self.question_first = question_first

    def model(self) -> Emu3:
        processor = make_processor(vocabulary(self.n_codes), question_first=self.question_first)
        return Emu3.from_parts(make_model(processor, self.hidden_size, self.layers, self.n_codes), processor)

    def tokenizer(self, model: Any) -> NamedCodes:
        return NamedCodes(Emu3Tokenizer(model.image_tokenizer))


class Emu3Tokenizer(ImageTokenizer):
    """transformers' ``Emu3VQVAE`` for still images.

    Args:
        pictures: The image tokenizer of an ``Emu3`` model.
    """

    def __init__(self, pictures: Emu3ImageTokenizer) -> None:
        super().__init__()
        self.pictures, self.vqmodel = pictures, pictures.vq

    @property
    def codes(self) -> torch.Tensor:
        return self.pictures.vq.quantize.embedding.weight

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.pictures.latents(pixels_BCHW)

    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        return self.pictures.reconstruct(code_BDHW)


def vocabulary(n_codes: int) -> list[str]:
    """Return marks, words and image codes, in the order of their token ids."""
    return [*_MARKS, *dict.fromkeys([*_SIZES_AND_SPEAKERS, *SPEECH, *WORDS]), *map(CODE.format, range(n_codes))]


def make_processor(words: Sequence[str], spread: float = 0.5, question_first: bool = False) -> Emu3Processor:
    """Return tokenizer, image processor and chat template of the embedded world.

    Args:
        words: The words of ``vocabulary``, in any order.
        spread: Standard deviation that the image processor divides by.
        question_first: Put the image after the question.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(words),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens={
            "image_token": IMAGE,
            "boi_token": IMAGE_START,
            "eoi_token": IMAGE_END,
            "image_wrapper_token": WRAPPER,
            "eof_token": FRAME_END,
        },
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    codes = sorted(word for word in words if word.startswith(CODE.partition("{")[0]))
    tokenizer.add_special_tokens({"extra_special_tokens": [LINE_END, *codes]}, replace_extra_special_tokens=False)
    area = IMAGE_SIZE**2
    images = Emu3ImageProcessor(image_mean=[0.5] * 3, image_std=[spread] * 3, min_pixels=area, max_pixels=area)
    return Emu3Processor(images, tokenizer, chat_template=_chat_template(question_first))


def _chat_template(question_first: bool) -> str:
    parts = (_TEXT_PART, _IMAGE_PART) if question_first else (_IMAGE_PART, _TEXT_PART)
    message = "{{ message['role'].upper() }}: " + "".join(parts)
    answer = "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    return "{% for message in messages %}" + message + "{% endfor %}" + answer


def make_model(
    processor: Emu3Processor,
    hidden_size: int = 128,
    layers: int = 4,
    n_codes: int = 256,
    key_value_heads: int = 4,
    vq_widths: Sequence[int] = (1, 1, 2, 2),
) -> Emu3ForConditionalGeneration:
    """Return a freshly initialised Emu3; the weights come from torch's global generator."""
    tokenizer, base = processor.tokenizer, 32
    text = Emu3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    codes = Emu3VQVAEConfig(
        codebook_size=n_codes,
        # its temporal layers have this width; at 8 training is several times slower
        embed_dim=32,
        latent_channels=32,
        base_channels=base,
        channel_multiplier=list(vq_widths),
        num_res_blocks=1,
        hidden_size=base * vq_widths[-1],
    )
    config = Emu3Config(vq_config=codes, text_config=text, vocabulary_map=tokenizer.get_vocab())
    config.dtype = "float32"
    model = Emu3ForConditionalGeneration(config)
    _initialise(model)
    return model


def _initialise(model: Emu3ForConditionalGeneration) -> None:
    text = model.model.text_model
    spread_linears(text, model.lm_head)
    spread_words(text.embed_tokens, text.config.pad_token_id)
    nn.init.normal_(model.model.vqmodel.quantize.embedding.weight, std=0.5)
