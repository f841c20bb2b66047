"""Write a checkpoint of a family in its published layout, with its real special tokens, template and widths.

Run ``python -m benchmarks.published FAMILY FOLDER``. The weights are random, and the tokenizer has one token for each
byte.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
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
    GenerationConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from benchmarks.byte_words import byte_tokenizer
from benchmarks.cost_model import janus_pro
from benchmarks.published_showo import random_published
from unigap.models.showo.chat_template import with_marks
from unigap.models.showo.checkpoint import filled, official_names, official_shape, write_folder
from unigap.models.showo.magvit import MagvitConfig

JANUS_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'].capitalize() }}|>: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image_placeholder>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '\n\n' }}{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
EMU3_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The form in which Hugging Face's copies of both write a chat: a system message is a bare sentence in Emu3's."""
FAMILIES = ("janus-pro-1b", "janus-pro-7b", "show-o", "emu3")
PUBLISHED_LAYERS = {"janus-pro-1b": 24, "janus-pro-7b": 30, "show-o": 24, "emu3": 32}
PUBLISHED_TOKENS = {"janus-pro-1b": 576, "janus-pro-7b": 576, "show-o": 256, "emu3": 8100}
NARROW = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
"""Widths of the language model for tests."""


@dataclass(frozen=True)
class Size:
    """What may differ from the published model.

    Attributes:
        layers: Layers of the language model.
        image_tokens: Tokens of an image, a square number.
        narrow: Whether the widths and vocabularies are small, for tests.
    """

    layers: int
    image_tokens: int
    narrow: bool = False

    @property
    def grid(self) -> int:
        """Tokens per side of an image."""
        grid = math.isqrt(self.image_tokens)
        if grid**2 != self.image_tokens:
            raise ValueError(f"--image_tokens {self.image_tokens} is not a square number; take {grid**2}")
        return grid


def janus_processor(system: bool = True, side: int = 32, image_tokens: int = 16) -> JanusProcessor:
    """Return Janus-Pro's processor: its special tokens and chat template, ``system`` with its system prompt."""
    named = {
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "image_token": "<image_placeholder>",
        "boi_token": "<begin_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tokenizer = byte_tokenizer([*named.values(), "<|User|>", "<|Assistant|>"], named, first="<s>")
    images = JanusImageProcessorPil(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return JanusProcessor(
        images,
        tokenizer,
        chat_template=JANUS_TEMPLATE,
        num_image_tokens=image_tokens,
        use_default_system_prompt=system,
    )


def emu3_processor(template: str = EMU3_TEMPLATE, n_codes: int = 0, area: int = 512 * 512) -> Emu3Processor:
    """Return Emu3's processor: its special tokens, and ``n_codes`` tokens for image codes."""
    named = {
        "pad_token": "<|endoftext|>",
        "bos_token": "<|extra_203|>",
        "eos_token": "<|extra_204|>",
        "image_token": "<image>",
        "boi_token": "<|image start|>",
        "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>",
        "eof_token": "<|extra_201|>",
    }
    codes = [f"<|visual token {code:06d}|>" for code in range(n_codes)]
    tokenizer = byte_tokenizer([*named.values(), "<|extra_200|>", *codes], named)
    images = Emu3ImageProcessor(min_pixels=area, max_pixels=area) if n_codes else Emu3ImageProcessor()
    return Emu3Processor(images, tokenizer, chat_template=template)


def janus_config(config: Any, size: Size) -> Any:
    """Give a Janus-Pro's configuration another depth and image length, in place, and return it."""
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    text.num_hidden_layers = size.layers
    if size.narrow:
        _adopt(text, NARROW | {"num_key_value_heads": 4, "head_dim": 16, "vocab_size": 512})
        _adopt(vision, {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "projection_dim": 64})
        _adopt(vq, {"num_embeddings": 64, "base_channels": 32, "channel_multiplier": [1] * 5, "num_res_blocks": 1})
        _adopt(vq, {"projection_dim": 64, "image_token_embed_dim": 64})
    _adopt(vision, {"image_size": size.grid * vision.patch_size, "num_image_tokens": size.image_tokens})
    vq.num_patches = size.grid
    return config


def write_janus(family: str, size: Size, folder: Path) -> None:
    """Write a Janus-Pro as ``deepseek-community`` does."""
    config = janus_config(janus_pro(family.rpartition("-")[2].upper()), size)
    processor = janus_processor(True, config.vision_config.image_size, size.image_tokens)
    tokenizer = processor.tokenizer
    config.image_token_id = tokenizer.convert_tokens_to_ids(processor.image_token)
    marks = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    _adopt(config.text_config, marks)
    net = _random(lambda: JanusForConditionalGeneration(config))
    net.generation_config = GenerationConfig(
        **marks,
        generation_kwargs={"boi_token_id": tokenizer.convert_tokens_to_ids("<begin_of_image>")},
        guidance_scale=5.0,
    )
    net.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_emu3(family: str, size: Size, folder: Path) -> None:
    """Write an Emu3 as ``BAAI/Emu3-Gen-hf`` is written, with the chat template of ``BAAI/Emu3-Chat-hf``."""
    text, vq = Emu3TextConfig(num_hidden_layers=size.layers), Emu3VQVAEConfig()
    if size.narrow:
        _adopt(text, NARROW | {"num_key_value_heads": 2})
        vq = Emu3VQVAEConfig(
            codebook_size=64, embed_dim=32, latent_channels=32, base_channels=32, channel_multiplier=[1] * 4,
            num_res_blocks=1, hidden_size=32,
        )  # fmt: skip
    processor = emu3_processor(n_codes=vq.codebook_size, area=size.image_tokens * 64)
    tokenizer = processor.tokenizer
    if size.narrow:
        text.vocab_size = len(tokenizer)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, getattr(tokenizer, name))
    config = Emu3Config(vq_config=vq, text_config=text, vocabulary_map=tokenizer.get_vocab())
    net = _random(lambda: Emu3ForConditionalGeneration(config))
    net.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_showo(family: str, size: Size, folder: Path) -> None:
    """Write the tensors of Show-o and MAGVIT-v2 by their published names, converted as the published files are."""
    shape = official_shape(size.grid)
    llm = shape.llm
    llm.num_hidden_layers = size.layers
    magvit = shape.magvit
    if size.narrow:
        magvit = MagvitConfig(
            bits=6, channels=16, groups=8, encoder_widths=(1, 1, 2, 2), encoder_blocks=(1, 2, 1, 1),
            decoder_widths=(1, 2, 2, 4), decoder_blocks=(2, 1, 1, 1),
        )  # fmt: skip
        _adopt(llm, NARROW | {"num_key_value_heads": 4, "vocab_size": 512 + 2**magvit.bits + 1})
    shape = replace(shape, llm=llm, magvit=magvit)
    words = byte_tokenizer(["<|endoftext|>"], {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    llm.bos_token_id = llm.eos_token_id = words.bos_token_id
    words = with_marks(words)
    llm.pad_token_id = words.pad_token_id
    write_folder(filled(shape, official_names(random_published(shape))), words, folder)


WRITERS: Mapping[str, Callable[[str, Size, Path], None]] = {
    "janus-pro-1b": write_janus,
    "janus-pro-7b": write_janus,
    "show-o": write_showo,
    "emu3": write_emu3,
}


def _adopt(config: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(config, name, value)


def _random(make: Callable[[], nn.Module]) -> Any:
    """Return the network with the random weights of its own library, in bfloat16 as published."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        return make().to(torch.bfloat16).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def size_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a size."""
    parser.add_argument("--layers", type=int, help="layers of the language model; default: as published")
    parser.add_argument("--image_tokens", type=int, help="tokens of an image, a square; default: as published")
    parser.add_argument("--narrow", action="store_true", help="small widths and vocabularies, for a test")


def size_of(family: str, args: argparse.Namespace) -> Size:
    """Return the size that the options name."""
    layers, tokens = PUBLISHED_LAYERS[family], PUBLISHED_TOKENS[family]
    return Size(args.layers or layers, args.image_tokens or tokens, args.narrow)


def main(argv: list[str] | None = None) -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description="A random checkpoint in the published layout of a family.")
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("folder", type=Path)
    size_options(parser)
    args = parser.parse_args(argv)
    WRITERS[args.family](args.family, size_of(args.family, args), args.folder)


if __name__ == "__main__":
    main()
