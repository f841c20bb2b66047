"""Network of BAGEL in the names of its checkpoint: language model, vision encoder, input and output of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Qwen2Config, SiglipVisionConfig
from transformers.activations import ACT2FN
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from unigap.models.bagel.experts import MixedLanguageModel
from unigap.models.engine.rectified_flow import time_features

# Shape legend: B images, R rows, N patches that are read, P numbers of a patch, D hidden width.

CONNECTOR_ACT = "gelu_pytorch_tanh"
"""Activation between vision encoder and language model; the authors set it in code, not in a file."""
TIME_FEATURES = 256
"""Width of the sinusoidal features of a time."""


@dataclass(frozen=True)
class BagelShape:
    """Sizes of a network.

    Attributes:
        llm: Configuration of the language model.
        vit: Configuration of the vision encoder, with the number of layers that run.
        latent_side: Largest number of latent tokens per side of a generated image.
        latent_width: C, the numbers of a latent token.
    """

    llm: Qwen2Config
    vit: SiglipVisionConfig
    latent_side: int
    latent_width: int

    @property
    def patch(self) -> int:
        """Pixels per side of a patch that is read."""
        return int(self.vit.patch_size)  # type: ignore[arg-type]

    @property
    def patches_side(self) -> int:
        """Largest number of patches per side of an image that is read."""
        return int(self.vit.image_size) // self.patch  # type: ignore[arg-type]


class PositionTable(nn.Module):
    """Stored table of two-dimensional positions, row by row.

    Args:
        side: Positions per side.
        width: D.
    """

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.pos_embed = nn.Parameter(torch.zeros(side**2, width), requires_grad=False)

    def forward(self, index_N: torch.Tensor) -> torch.Tensor:
        """Return the rows of some positions, numbered by ``places``."""
        return self.pos_embed[index_N]


class TimeEmbedder(nn.Module):
    """Embedding of a time in [0, 1].

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time_R: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of times, (R, D)."""
        first: Any = self.mlp[0]
        return self.mlp(time_features(time_R, TIME_FEATURES).to(first.weight.dtype))


class Connector(nn.Module):
    """Two layers from the vision encoder to the language model.

    Args:
        inputs: Width of the vision encoder.
        width: D.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.activation = ACT2FN[CONNECTOR_ACT]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features in the width of the language model."""
        return self.fc2(self.activation(self.fc1(features)))


class VisionTransformer(nn.Module):
    """SigLIP over patches of an image of any size, with a linear patch embedding.

    Args:
        config: Configuration of the encoder.
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        patch, side = int(config.patch_size), int(config.image_size)  # type: ignore[arg-type]
        self.embeddings = nn.ModuleDict(
            {
                "patch_embedding": nn.Linear(config.num_channels * patch**2, config.hidden_size),
                "position_embedding": nn.Embedding((side // patch) ** 2, config.hidden_size),
            }
        )
        self.encoder = SiglipEncoder(config)  # type: ignore[arg-type]
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, patches_BNP: torch.Tensor, index_N: torch.Tensor) -> torch.Tensor:
        """Return the features of patches.

        Args:
            patches_BNP: Pixels of the patches, channels last.
            index_N: Position of each patch, as numbered by ``places``.
        """
        embeds = self.embeddings["patch_embedding"](patches_BNP) + self.embeddings["position_embedding"](index_N)
        return self.post_layernorm(self.encoder(inputs_embeds=embeds).last_hidden_state)


class VisionEncoder(nn.Module):
    """Vision encoder, one module deeper, as its weights are named."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config)


class BagelNetwork(nn.Module):
    """All weights of ``ema.safetensors``.

    Args:
        shape: Sizes of the network.
        attn_implementation: ``sdpa`` or ``eager``.
    """

    def __init__(self, shape: BagelShape, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        width = shape.llm.hidden_size
        shape.vit._attn_implementation = attn_implementation
        build: Any = MixedLanguageModel._from_config
        self.language_model: Any = build(shape.llm, attn_implementation=attn_implementation)
        self.vit_model = VisionEncoder(shape.vit)
        self.connector = Connector(shape.vit.hidden_size, width)
        self.vit_pos_embed = PositionTable(shape.patches_side, width)
        self.vae2llm, self.llm2vae = nn.Linear(shape.latent_width, width), nn.Linear(width, shape.latent_width)
        self.time_embedder = TimeEmbedder(width)
        self.latent_pos_embed = PositionTable(shape.latent_side, width)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.vae2llm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.vae2llm.weight.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, adding a last dimension D."""
        return self.language_model.model.embed_tokens(ids)

    def read(self, patches_BNP: torch.Tensor, index_N: torch.Tensor) -> torch.Tensor:
        """Return input embeddings (B, N, D) of the patches of images that are read."""
        features = self.vit_model.vision_model(patches_BNP.to(self.dtype), index_N)
        return self.connector(features) + self.vit_pos_embed(index_N)


def places(rows: int, columns: int, side: int, device: torch.device) -> torch.Tensor:
    """Number the positions of a grid in a table with ``side`` positions per side, int64 (rows * columns,)."""
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return (row[:, None] * side + column).flatten()
