"""Depth transformer of VILA-U: the codes of one image position, one after another, given the trunk's hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

# Shape legend: K image positions, T codes of a position that are predicted at once, D codes of a position, V codes,
# C width of a code vector, H width of the trunk, E width of the depth transformer, A attention heads.

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (K, A, T, E / A)."""


@dataclass(frozen=True)
class DepthShape:
    """Sizes of a depth transformer.

    Attributes:
        depth: D.
        n_codes: V.
        code_width: C.
        trunk_width: H.
        width: E.
        layers: Number of layers.
        heads: A.
    """

    depth: int
    n_codes: int
    code_width: int
    trunk_width: int
    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"the depth transformer's width {self.width} is no multiple of its {self.heads} heads")


class DepthTransformer(nn.Module):
    """Predict the codes of a position from the trunk's hidden state and the sums of the code vectors before them.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: DepthShape) -> None:
        super().__init__()
        self.shape = shape
        self.in_mlp_1 = nn.Linear(shape.code_width, shape.width)
        self.in_mlp_2 = nn.Linear(shape.trunk_width, shape.width)
        self.head_transformer = Stack(shape)
        self.pos_emb_d = nn.Parameter(torch.zeros(1, shape.depth, shape.width).normal_(std=0.02))
        self.classifier_mlp = nn.ModuleDict(
            {"layer_norm": nn.LayerNorm(shape.width), "linear": nn.Linear(shape.width, shape.n_codes)}
        )

    def states(self, hidden_KH: torch.Tensor, sums_KDC: torch.Tensor) -> torch.Tensor:
        """Return the state (K, D, E) that predicts each code, given the codes before it.

        Args:
            hidden_KH: The trunk's hidden states.
            sums_KDC: Cumulative sums of the code vectors; the last one is no input.
        """
        inputs_KDE = torch.cat([self.in_mlp_2(hidden_KH)[:, None], self._read(sums_KDC[:, :-1])], 1)
        return self.head_transformer(inputs_KDE + self.pos_emb_d)

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V) of the code that each state (..., E) predicts."""
        return self.classifier_mlp["linear"](self.classifier_mlp["layer_norm"](state))

    def first(self, hidden_KH: torch.Tensor) -> tuple[torch.Tensor, DepthCache]:
        """Return the logits (K, V) of the first code of each position, and a cache to continue with."""
        cache = DepthCache([])
        return self._one(self.in_mlp_2(hidden_KH), cache), cache

    def following(self, sum_KC: torch.Tensor, cache: DepthCache) -> torch.Tensor:
        """Return the logits (K, V) of the next code, given the sum of the code vectors so far."""
        return self._one(self._read(sum_KC), cache)

    def _read(self, sums: torch.Tensor) -> torch.Tensor:
        # the image tokenizer stays in float32
        return self.in_mlp_1(sums.to(self.in_mlp_1.weight.dtype))

    def _one(self, input_KE: torch.Tensor, cache: DepthCache) -> torch.Tensor:
        number = cache.length
        state_K1E = self.head_transformer(input_KE[:, None] + self.pos_emb_d[:, number : number + 1], cache)
        return self.logits(state_K1E[:, 0])


@dataclass
class DepthCache:
    """Keys and values of the codes of a position so far, by layer."""

    layers: list[KeysValues]

    @property
    def length(self) -> int:
        """Number of inputs so far."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def extended(self, layer: int, new: KeysValues) -> KeysValues:
        """Append the keys and values of one input to those of a layer, and return all."""
        if layer == len(self.layers):
            self.layers.append(new)
        else:
            past = self.layers[layer]
            self.layers[layer] = (torch.cat([past[0], new[0]], 2), torch.cat([past[1], new[1]], 2))
        return self.layers[layer]


class Stack(nn.Module):
    """Layers of the depth transformer."""

    def __init__(self, shape: DepthShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.layers))

    def forward(self, hidden_KTE: torch.Tensor, cache: DepthCache | None = None) -> torch.Tensor:
        """Return the states after all layers; with a cache, of one input after those in it."""
        for layer, block in enumerate(self.blocks):
            hidden_KTE = block(hidden_KTE, cache, layer)
        return hidden_KTE


class Block(nn.Module):
    """Causal pre-norm layer. The authors' dropout of 0.1 is left out: it would make likelihoods random."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, hidden_KTE: torch.Tensor, cache: DepthCache | None, layer: int) -> torch.Tensor:
        """Return the states after this layer."""
        hidden_KTE = hidden_KTE + self.attn(self.ln1(hidden_KTE), cache, layer)
        return hidden_KTE + self.mlp(self.ln2(hidden_KTE))


class SelfAttention(nn.Module):
    """Causal self-attention over the codes of a position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden_KTE: torch.Tensor, cache: DepthCache | None, layer: int) -> torch.Tensor:
        """Return the attention output (K, T, E)."""
        query, key, value = (
            project(hidden_KTE).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if cache is not None:
            key, value = cache.extended(layer, (key, value))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        return self.proj(attended.transpose(1, 2).flatten(2))
