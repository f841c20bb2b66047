"""A small Show-o of the embedded world with random weights, for the tests."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PhiConfig

from unigap.models.magvit import MagvitConfig
from unigap.models.showo import ShowO
from unigap.models.showo_dialogue import with_marks
from unigap.models.showo_network import ShowONetwork, ShowOShape
from unigap.shapes.newborn import make_processor

SMALL_MAGVIT = MagvitConfig(
    bits=6,
    channels=16,
    groups=8,
    encoder_widths=(1, 1, 2, 2),
    encoder_blocks=(1, 2, 1, 1),
    decoder_widths=(1, 2, 2, 4),
    decoder_blocks=(2, 1, 1, 1),
)
"""Eight pixels a token, 64 codes, and no two levels alike."""


def small_words() -> Any:
    """The words of the embedded world with Show-o's marks."""
    return with_marks(make_processor().tokenizer)


def small_shape(words: Any, grid: int = 4, hidden: int = 64, layers: int = 2) -> ShowOShape:
    """A trunk of a hundred thousand parameters."""
    llm = PhiConfig(
        vocab_size=len(words) + 2**SMALL_MAGVIT.bits + 1,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=240,
        qk_layernorm=True,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    return ShowOShape(llm, SMALL_MAGVIT, grid, "{question}\n:")


def small_showo(grid: int = 4, **options: Any) -> ShowO:
    """The model in memory; takes the options of ``ShowO.from_parts``."""
    words = small_words()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ShowONetwork(small_shape(words, grid)).eval()
        # attention is sharp and strong, so that what a token becomes depends on the others
        for name, parameter in net.llm.named_parameters():
            if name.endswith("q_layernorm.weight"):
                torch.nn.init.constant_(parameter, 5.0)
            elif parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.1 if ".mlp." in name else 0.4)
    return ShowO.from_parts(net, words, **options)
