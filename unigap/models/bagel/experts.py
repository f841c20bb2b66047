"""Language model of BAGEL: a Qwen2 with two experts in every layer and one attention over the tokens of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from transformers import Qwen2Config
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2MLP,
    Qwen2PreTrainedModel,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

# Shape legend: B prompts, R rows, T tokens of one or both experts, L cached tokens, S = L + T, D hidden width,
# H query heads, K key-value heads, W head width.

UNDERSTANDING, GENERATION = "", "_moe_gen"
"""Suffixes of the module names of each expert: text and images that are read, and latents that are generated."""
EXPERTS = (UNDERSTANDING, GENERATION)

Tokens = Mapping[str, torch.Tensor]
"""Hidden states (R, T, D) of the tokens of each expert, by its suffix."""
KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, (R, K, T, W)."""
Rotary = tuple[torch.Tensor, torch.Tensor]
"""Rotary cosines and sines, (R, T, W), or (R, 1, W) if all tokens have one position."""


class MixedAttention(nn.Module):
    """Attention with projections of each expert, over the tokens of both.

    Args:
        config: Configuration of the language model.
        layer: Index of the layer.
    """

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        heads, width = config.num_attention_heads, config.hidden_size
        groups = config.num_key_value_heads or heads
        self.head_dim = width // heads
        self.num_key_value_groups, self.scaling = heads // groups, self.head_dim**-0.5
        for expert in EXPERTS:
            for name, outputs in (("q", heads), ("k", groups), ("v", groups)):
                self.add_module(f"{name}_proj{expert}", nn.Linear(width, outputs * self.head_dim))
            self.add_module(f"o_proj{expert}", nn.Linear(heads * self.head_dim, width, bias=False))
            for name in ("q", "k"):
                self.add_module(f"{name}_norm{expert}", Qwen2RMSNorm(self.head_dim, config.rms_norm_eps))

    def project(self, hidden_RTD: torch.Tensor, rotary: Rotary, expert: str) -> tuple[torch.Tensor, KeysValues]:
        """Return rotated queries (R, H, T, W), and keys and values of the tokens of one expert."""
        query, key, value = (
            self.get_submodule(f"{name}_proj{expert}")(hidden_RTD).unflatten(-1, (-1, self.head_dim)) for name in "qkv"
        )
        query, key = (
            self.get_submodule(f"{name}_norm{expert}")(heads).transpose(1, 2)
            for name, heads in (("q", query), ("k", key))
        )
        query, key = apply_rotary_pos_emb(query, key, *rotary)
        return query, (key, value.transpose(1, 2))

    def forward(
        self, normed: Tokens, rotary: Rotary, cached: KeysValues | None, bias: torch.Tensor | None
    ) -> tuple[Tokens, KeysValues]:
        """Return the attention output of each expert's tokens, and the keys and values of all tokens.

        Args:
            normed: Normalised hidden states.
            rotary: Rotary tables of the tokens.
            cached: Keys and values of earlier tokens.
            bias: Additive mask, broadcastable to (R, 1, T, S); ``None`` attends to all tokens.
        """
        projected = [self.project(hidden_RTD, rotary, expert) for expert, hidden_RTD in normed.items()]
        queries, own = zip(*projected, strict=True)
        keys, values = (torch.cat(parts, 2) for parts in zip(*own, strict=True))
        visible = (keys, values)
        if cached is not None:
            visible = (torch.cat([cached[0], keys], 2), torch.cat([cached[1], values], 2))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        query_RHTW = torch.cat(queries, 2)
        attended, _ = attend(self, query_RHTW, *visible, bias, dropout=0.0, scaling=self.scaling, is_causal=False)
        parts = attended.flatten(2).split([hidden_RTD.shape[1] for hidden_RTD in normed.values()], 1)
        outputs = {
            expert: self.get_submodule(f"o_proj{expert}")(part) for expert, part in zip(normed, parts, strict=True)
        }
        return outputs, (keys, values)


class MixedLayer(GradientCheckpointingLayer):
    """Transformer layer with norms and an MLP of each expert.

    Args:
        config: Configuration of the language model.
        layer: Index of the layer.
    """

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.self_attn = MixedAttention(config, layer)
        for expert in EXPERTS:
            self.add_module(f"mlp{expert}", Qwen2MLP(config))
            for norm in ("input_layernorm", "post_attention_layernorm"):
                self.add_module(f"{norm}{expert}", Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(
        self, tokens: Tokens, rotary: Rotary, cached: KeysValues | None, bias: torch.Tensor | None
    ) -> tuple[Tokens, KeysValues]:
        """Return the hidden states after the layer, and the keys and values of all tokens."""
        normed = {expert: self.get_submodule(f"input_layernorm{expert}")(h) for expert, h in tokens.items()}
        attended, own = self.self_attn(normed, rotary, cached, bias)
        return {expert: self._feed_forward(h + attended[expert], expert) for expert, h in tokens.items()}, own

    def _feed_forward(self, hidden_RTD: torch.Tensor, expert: str) -> torch.Tensor:
        normed_RTD = self.get_submodule(f"post_attention_layernorm{expert}")(hidden_RTD)
        return hidden_RTD + self.get_submodule(f"mlp{expert}")(normed_RTD)


class MixedTransformer(nn.Module):
    """Embeddings, layers and final norms of the language model.

    Args:
        config: Its configuration.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(MixedLayer(config, layer) for layer in range(config.num_hidden_layers))
        for expert in EXPERTS:
            self.add_module(f"norm{expert}", Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps))
        self.rotary_emb = Qwen2RotaryEmbedding(config)

    def forward(
        self,
        tokens: Tokens,
        position_RT: torch.Tensor,
        bias: torch.Tensor | None = None,
        cache: Sequence[KeysValues] | None = None,
    ) -> tuple[Tokens, list[KeysValues]]:
        """Run all layers.

        Args:
            tokens: Input embeddings of each expert's tokens, the attention of which follows this order.
            position_RT: Position of each token, (R, T), or (R, 1) if all tokens have one position.
            bias: Additive mask, broadcastable to (R, 1, T, S); ``None`` attends to all tokens.
            cache: Keys and values of earlier tokens, by layer.

        Returns:
            Hidden states after the final norms, and the keys and values of all tokens by layer.
        """
        rotary = self.rotary_emb(next(iter(tokens.values())), position_RT)
        keys_values = []
        for index, layer in enumerate(self.layers):
            tokens, own = layer(tokens, rotary, None if cache is None else cache[index], bias)
            keys_values.append(own)
        return {expert: self.get_submodule(f"norm{expert}")(h) for expert, h in tokens.items()}, keys_values


class MixedLanguageModel(Qwen2PreTrainedModel):
    """Language model with a text head, in the names of BAGEL's checkpoint."""

    _no_split_modules = ["MixedLayer"]  # noqa: RUF012 (transformers' name and type)

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = MixedTransformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]


class TrainedExperts(nn.ModuleDict):
    """Modules of some experts in all layers, with their final norms; embeddings and heads are no expert's.

    Args:
        transformer: The layers.
        experts: Suffixes of the experts.
    """

    def __init__(self, transformer: MixedTransformer, experts: Sequence[str]) -> None:
        layers = nn.ModuleDict()
        for index, layer in enumerate(transformer.layers):
            parts = {name: child for name, child in layer.named_children() if name != "self_attn"}
            projections = layer.get_submodule("self_attn").named_children()
            layers[str(index)] = nn.ModuleDict(
                {"self_attn": _chosen(projections, experts), **_chosen(parts.items(), experts)}
            )
        norms = {f"norm{expert}": transformer.get_submodule(f"norm{expert}") for expert in experts}
        super().__init__({"layers": layers, **norms})
        # a tuple, because layers also hold the other expert
        self._whole_layers = tuple(transformer.layers)

    def train(self, mode: bool = True) -> TrainedExperts:
        """Set the mode of the modules and of their layers, which recompute activations in train mode only."""
        super().train(mode)
        for layer in self._whole_layers:
            layer.training = mode
        return self


def _chosen(modules: Iterable[tuple[str, nn.Module]], experts: Sequence[str]) -> nn.ModuleDict:
    """Return the modules that belong to some experts, by the suffixes of their names."""
    return nn.ModuleDict(
        {
            name: module
            for name, module in modules
            if (GENERATION if name.endswith(GENERATION) else UNDERSTANDING) in experts
        }
    )
