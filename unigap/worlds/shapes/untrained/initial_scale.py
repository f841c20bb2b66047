"""Scales at which small networks begin to learn: transformers' own, 0.02, is too small for their width."""

from __future__ import annotations

import torch
from torch import nn


def spread_linears(*parts: nn.Module) -> None:
    """Draws the weights of all linear layers anew, in the order of the parts (Glorot and Bengio 2010)."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)


def spread_words(table: nn.Embedding, pad: int) -> None:
    """Draws the vectors of words anew; that of padding is zero."""
    nn.init.normal_(table.weight, std=0.25)
    with torch.no_grad():
        table.weight[pad].zero_()
