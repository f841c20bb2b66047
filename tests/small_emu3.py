"""A small Emu3 of the embedded world with random weights and its real processor, for the tests."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import Emu3ForConditionalGeneration, Emu3Processor

from unigap.worlds.shapes.untrained.emu3 import make_model, make_processor, vocabulary

CODES = 64


def small_processor() -> Emu3Processor:
    """Words, marks and image codes in one vocabulary, in no order; its pixels are not those it is given."""
    words = vocabulary(CODES)
    random.Random(0).shuffle(words)
    return make_processor(words, spread=0.4)


def small_network(processor: Emu3Processor) -> Emu3ForConditionalGeneration:
    """A trunk of a hundred thousand parameters, whose heads share keys and values, as Emu3's do."""
    net = make_model(
        processor, hidden_size=64, layers=2, n_codes=CODES, key_value_heads=2, vq_widths=(1, 1, 1, 1)
    ).eval()
    # attention is sharp and strong, so that what a token becomes depends on the others
    for name, parameter in net.model.text_model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1 if ".mlp." in name else 0.35)
    torch.nn.init.normal_(net.lm_head.weight, std=0.12)
    # close to each other, so that pictures are told apart by more than a few of them
    torch.nn.init.normal_(net.model.vqmodel.quantize.embedding.weight, std=0.05)
    return net


def save_small_emu3(folder: Path) -> None:
    """Writes the model as transformers does."""
    processor = small_processor()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small_network(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
