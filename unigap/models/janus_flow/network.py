"""Network of JanusFlow: a Llama, a SigLIP that reads images, and an encoder and a decoder of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from unigap.models.janus_flow.uvit import LatentDecoder, LatentEncoder, UViTSizes

# Shape legend: B images, R rows, T image tokens, C H W image channels and sides, D hidden width.


@dataclass(frozen=True)
class JanusFlowShape:
    """Sizes of a network.

    Attributes:
        llm: Configuration of the language model.
        vision: Configuration of the vision encoder.
        encoder: Sizes of the encoder of latents.
        decoder: Sizes of the decoder of latents.

    Raises:
        ValueError: Two parts do not fit each other.
    """

    llm: LlamaConfig
    vision: SiglipVisionConfig
    encoder: UViTSizes
    decoder: UViTSizes

    def __post_init__(self) -> None:
        pairs = (
            ("hidden_size of vision_gen_enc_config", self.encoder.hidden_size, "language_config", self.llm.hidden_size),
            ("hidden_size of vision_gen_dec_config", self.decoder.hidden_size, "language_config", self.llm.hidden_size),
            ("block_out_channels of vision_gen_dec_config", self.decoder.width, "the encoder", self.encoder.width),
            ("out_channels of vision_gen_dec_config", self.decoder.out_channels, "the encoder", self.channels),
            ("2 to the upsamples of vision_gen_dec_config", 2**self.decoder.upsamples, "the encoder", self.patch),
        )
        for name, found, other, expected in pairs:
            if found != expected:
                raise ValueError(f"{name} is {found}, but {other} has {expected}")

    @property
    def patch(self) -> int:
        """Latents per side of a token."""
        return self.encoder.stride

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.encoder.input_channels

    @property
    def image_size(self) -> int:
        """Pixels per side of an image that is read."""
        return int(self.vision.image_size)  # type: ignore[arg-type]

    @property
    def image_tokens(self) -> int:
        """Tokens of an image that is read, without its start and end."""
        return (self.image_size // int(self.vision.patch_size)) ** 2  # type: ignore[arg-type]


class JanusFlowNetwork(nn.Module):
    """All weights of a checkpoint; the names are the published ones, except inside the vision encoder.

    Args:
        shape: Sizes of the network.
        attn_implementation: ``sdpa`` or ``eager``.
    """

    def __init__(self, shape: JanusFlowShape, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        width, build = int(shape.llm.hidden_size), _built(attn_implementation)
        self.language_model: Any = build(LlamaForCausalLM, shape.llm)
        self.vision_und_enc_model: Any = build(SiglipVisionModel, shape.vision)
        self.vision_und_enc_aligner = nn.Linear(int(shape.vision.hidden_size), width)
        self.beg_of_und_embed = nn.Parameter(torch.zeros(1, width))
        self.vision_gen_enc_model = LatentEncoder(shape.encoder)
        self.vision_gen_enc_aligner = nn.Linear(shape.encoder.width, width)
        self.vision_gen_dec_aligner_norm = LlamaRMSNorm(width, shape.llm.rms_norm_eps)
        self.vision_gen_dec_aligner = nn.Linear(width, shape.decoder.in_channels)
        self.vision_gen_dec_model = LatentDecoder(shape.decoder)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.beg_of_und_embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.beg_of_und_embed.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, adding a last dimension D."""
        return self.language_model.model.embed_tokens(ids)

    def read(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return input embeddings (B, 1 + T, D) of normalised images: one that begins an image, and one per patch."""
        seen = self.vision_und_enc_model(pixels_BCHW.to(self.dtype)).last_hidden_state
        first = self.beg_of_und_embed.expand(len(seen), 1, -1)
        return torch.cat([first, self.vision_und_enc_aligner(seen)], 1)


def _built(attn_implementation: str) -> Any:
    return lambda model, config: model._from_config(config, attn_implementation=attn_implementation)
