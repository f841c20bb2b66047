"""Network of VILA-U in the names of its checkpoint: language model, vision tower, projector."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from unigap.models.vila_u.depth_transformer import DepthShape, DepthTransformer
from unigap.models.vila_u.image_tokenizer import ImageTokenizer, TokenizerShape

# Shape legend: D codes of a position, C width of a code vector, H width of the trunk.

PROJECTOR = re.compile(r"linear|mlp(\d{1,2})x_gelu")
"""Kinds of projector that a config may name."""


@dataclass(frozen=True)
class VilaUShape:
    """Sizes of a network.

    Attributes:
        llm: Configuration of the language model.
        tokenizer: Sizes of the image tokenizer.
        depth: Sizes of the depth transformer.
        projector: Kind of the projector, ``linear`` or ``mlpNx_gelu`` with N layers.
    """

    llm: LlamaConfig
    tokenizer: TokenizerShape
    depth: DepthShape
    projector: str

    @property
    def positions(self) -> int:
        """Positions of an image."""
        return self.tokenizer.grid**2

    @property
    def code_shape(self) -> tuple[int, int]:
        """Shape of the codes of an image."""
        return self.positions, self.tokenizer.depth


class Projector(nn.Module):
    """Layers from code vectors to the trunk.

    Args:
        kind: ``linear`` or ``mlpNx_gelu``.
        inputs: C.
        width: H.

    Raises:
        ValueError: The kind is unknown.
    """

    def __init__(self, kind: str, inputs: int, width: int) -> None:
        super().__init__()
        found = PROJECTOR.fullmatch(kind)
        if not found:
            raise ValueError(f"unknown mm_projector_type {kind!r}; linear and mlpNx_gelu are known")
        self.layers: nn.Module = nn.Linear(inputs, width)
        if found[1]:
            more = [part for _ in range(1, int(found[1])) for part in (nn.GELU(), nn.Linear(width, width))]
            self.layers = nn.Sequential(self.layers, *more)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return input embeddings (..., H) of sums of code vectors (..., C)."""
        weight = next(self.layers.parameters())
        return self.layers(vectors.to(weight.dtype))


class VisionTower(nn.Module):
    """Image tokenizer and depth transformer, which the authors keep in one file."""

    def __init__(self, tokenizer: TokenizerShape, depth: DepthShape) -> None:
        super().__init__()
        self.rqvaesiglip, self.rqtransformer = ImageTokenizer(tokenizer), DepthTransformer(depth)


class VilaUNetwork(nn.Module):
    """All weights that run.

    Args:
        shape: Sizes of the network.
        attn_implementation: ``sdpa`` or ``eager``.
    """

    def __init__(self, shape: VilaUShape, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        shape.tokenizer.vit._attn_implementation = attn_implementation
        build: Any = LlamaForCausalLM._from_config
        self.llm: Any = build(shape.llm, attn_implementation=attn_implementation)
        self.vision_tower = VisionTower(shape.tokenizer, shape.depth)
        self.mm_projector = Projector(shape.projector, shape.depth.code_width, shape.llm.hidden_size)

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """The image tokenizer."""
        return self.vision_tower.rqvaesiglip

    @property
    def depth_transformer(self) -> DepthTransformer:
        """The depth transformer."""
        return self.vision_tower.rqtransformer

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.llm.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights outside the image tokenizer."""
        return self.llm.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, adding a last dimension H."""
        return self.llm.model.embed_tokens(ids)

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Return input embeddings (..., H) of image positions given by their codes (..., D)."""
        return self.mm_projector(self.image_tokenizer.quantizer.sums(codes)[..., -1, :])
