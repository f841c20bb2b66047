"""KV cache of prompts that images attend to and that they leave as it is."""

from __future__ import annotations

from typing import Any

import torch

# Shape legend: G rows of a pass.


class PromptCache:
    """Read-only KV cache of the prompts.

    Passed to transformers' attention layers as ``past_key_values``; keys and values of the images are not stored.

    Args:
        cache: transformers' cache after the prompts.
        row_G: Index of the prompt of each row.
    """

    def __init__(self, cache: Any, row_G: torch.Tensor) -> None:
        self.layers = [(layer.keys[row_G], layer.values[row_G]) for layer in cache.layers]

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values, those of the prompts first."""
        prompt_keys, prompt_values = self.layers[layer]
        return torch.cat([prompt_keys, keys], 2), torch.cat([prompt_values, values], 2)
