"""The tiny Janus that ours and the peers run on: 0.7 M parameters beside its image tokenizer, 144 codes an image."""

from __future__ import annotations

import torch

from unigap.models.janus import Janus
from unigap.worlds.shapes.untrained.janus import make_model, make_processor

GRID = 12
PROMPTS = ["a red circle", "a small red circle left of a large blue square", "six rings", "two black crosses"]


def small_janus(compile: bool = False) -> Janus:
    """The same random weights each time."""
    processor = make_processor(GRID)
    torch.manual_seed(0)
    net = make_model(processor, hidden_size=96, layers=4, vision_layers=1).eval()
    return Janus.from_parts(net, processor, compile)


def parameters(janus: Janus) -> int:
    """Number of weights beside the image tokenizer's."""
    tokenizer = set(janus.core.vqmodel.parameters())
    return sum(p.numel() for p in janus.parameters() if p not in tokenizer)
