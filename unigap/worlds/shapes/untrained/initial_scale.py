"""Initial weight scales for small networks: the 0.02 of transformers is too small for their width."""

from __future__ import annotations

import torch
from torch import nn


def spread_linears(*parts: nn.Module) -> None:
    """Resample the weights of all linear layers, in the order of the parts (Glorot and Bengio 2010)."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)


def spread_words(table: nn.Embedding, pad: int) -> None:
    """Resample the token embeddings; the padding embedding becomes zero."""
    nn.init.normal_(table.weight, std=0.25)
    with torch.no_grad():
        table.weight[pad].zero_()
