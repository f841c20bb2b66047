"""The tiny Janus of all benchmarks: 0.7 M parameters without its image tokenizer, 144 codes per image."""

from __future__ import annotations

import torch

from unigap.models.janus import Janus
from unigap.worlds.shapes.untrained.janus import make_model, make_processor

GRID = 12
PROMPTS = ["a red circle", "a small red circle left of a large blue square", "six rings", "two black crosses"]


def small_janus(compile: bool = False) -> Janus:
    """Build the model; its random weights are the same each time."""
    processor = make_processor(GRID)
    torch.manual_seed(0)
    net = make_model(processor, hidden_size=96, layers=4, vision_layers=1).eval()
    return Janus.from_parts(net, processor, compile)


def parameters(janus: Janus) -> int:
    """Return the number of weights without those of the image tokenizer."""
    tokenizer = set(janus.core.vqmodel.parameters())
    return sum(p.numel() for p in janus.parameters() if p not in tokenizer)
