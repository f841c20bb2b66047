"""A small Emu3 of the embedded world with random weights and its real processor, for the tests."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    Emu3TextConfig,
    Emu3VQVAEConfig,
    PreTrainedTokenizerFast,
)

from unigap.shapes.grammar import WORDS

CODES, SIDE = 64, 32
PAD, BOS, EOS, UNK = "<|endoftext|>", "<|extra_203|>", "<|extra_204|>", "<unk>"
LINE_END, FRAME_END = "<|extra_200|>", "<|extra_201|>"
IMAGE, IMAGE_START, IMAGE_END, WRAPPER = "<image>", "<|image start|>", "<|image end|>", "<|image token|>"
SPECIAL = (PAD, BOS, EOS, UNK, LINE_END, FRAME_END, IMAGE, IMAGE_START, IMAGE_END, WRAPPER)
SPEECH = (*"0123456789*:?.", "user", "assistant", "does", "this", "image", "describe", "show", "is", "what", "it")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def small_processor() -> Emu3Processor:
    """Words, marks and image codes in one vocabulary; the codes in no order, between words."""
    codes = [f"<|visual token {code:06d}|>" for code in range(CODES)]
    shuffled = [*codes, *SPEECH[:5]]
    random.Random(0).shuffle(shuffled)
    words = [*SPECIAL, *shuffled, *dict.fromkeys([*SPEECH[5:], "yes", "no", *WORDS])]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[^a-z ]"), behavior="removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
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
    tokenizer.add_special_tokens({"extra_special_tokens": [LINE_END, *codes]}, replace_extra_special_tokens=False)
    images = Emu3ImageProcessor(image_mean=[0.5] * 3, image_std=[0.4] * 3, min_pixels=SIDE**2, max_pixels=SIDE**2)
    return Emu3Processor(images, tokenizer, chat_template=TEMPLATE)


def small_network(processor: Emu3Processor) -> Emu3ForConditionalGeneration:
    """A trunk of a hundred thousand parameters and eight pixels a token, as Emu3 has."""
    tokenizer = processor.tokenizer
    text = Emu3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    codes = Emu3VQVAEConfig(
        codebook_size=CODES, base_channels=32, channel_multiplier=[1, 1, 1, 1], num_res_blocks=1, hidden_size=32
    )
    config = Emu3Config(vq_config=codes, text_config=text, vocabulary_map=tokenizer.get_vocab())
    config.dtype = "float32"
    net = Emu3ForConditionalGeneration(config).eval()
    # attention is sharp and strong, so that what a token becomes depends on the others
    for name, parameter in net.model.text_model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1 if ".mlp." in name else 0.4)
    torch.nn.init.normal_(net.lm_head.weight, std=0.12)
    return net


def save_small_emu3(folder: Path) -> None:
    """Writes the model as transformers does."""
    processor = small_processor()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small_network(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
