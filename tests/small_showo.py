"""A small Show-o of the embedded world with random weights, for the tests."""

from __future__ import annotations

from typing import Any

import torch

from unigap.models.showo import ShowO
from unigap.models.showo.chat_template import with_marks
from unigap.models.showo.magvit import MagvitConfig
from unigap.models.showo.network import ShowONetwork
from unigap.worlds.shapes.untrained.showo import make_network, make_words

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


def small_network(words: Any, grid: int = 4) -> ShowONetwork:
    """A trunk of a hundred thousand parameters; ``words`` have Show-o's marks."""
    return make_network(words, SMALL_MAGVIT, hidden_size=64, layers=2, grid=grid).eval()


def small_showo(grid: int = 4, **options: Any) -> ShowO:
    """The model in memory; takes the options of ``ShowO.from_parts``."""
    words = with_marks(make_words())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = small_network(words, grid)
        # attention is sharp and strong, so that what a token becomes depends on the others
        for name, parameter in net.llm.named_parameters():
            if name.endswith("q_layernorm.weight"):
                torch.nn.init.constant_(parameter, 5.0)
            elif parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.1 if ".mlp." in name else 0.4)
    return ShowO.from_parts(net, words, **options)
