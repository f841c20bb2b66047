"""A small JanusFlow with random weights in the published layout, which its authors' code loads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.byte_words import byte_tokenizer
from benchmarks.small_bagel import WIDTHS, random_state
from unigap.models.janus_flow import FlowSettings
from unigap.models.janus_flow.chat_template import IMAGE, IMAGE_END, IMAGE_START, PAD
from unigap.models.janus_flow.checkpoint import CONFIG, IMAGES, PROCESSOR, VAE, WEIGHTS
from unigap.models.janus_flow.network import JanusFlowNetwork, JanusFlowShape
from unigap.models.janus_flow.uvit import UViTSizes
from unigap.models.janus_flow.vision_names import POOL, published_names

BOS, EOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
GENERATION = "<\uff5cbegin\u2581of\u2581generation\uff5c>"
SIDE, TOKENS, WIDTH, VISION, LATENT_SCALE = 32, 16, 64, 32, 0.13025
LLM = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "float32",
    "vocab_size": 320,
}
ENCODER: dict[str, Any] = {
    "block_out_channels": [32],
    "dropout": 0.0,
    "elementwise_affine": True,
    "hidden_size": WIDTH,
    "input_channels": 4,
    "kernel_size": 2,
    "layers_in_middle": 2,
    "norm_eps": 1e-6,
    "padding": 0,
    "stride": 2,
    "use_bias": True,
}
DECODER: dict[str, Any] = {
    "block_out_channels": [32],
    "hidden_size": WIDTH,
    "in_channels": 32,
    "layers_in_middle": 2,
    "norm_eps": 1e-6,
    "out_channels": 4,
    "upsamples": 1,
    "use_bias": True,
}
TOWER = {"image_size": SIDE, "model_name": "siglip_large_patch16_384", "select_feature": "same", "select_layer": -1}
SMALL_CONFIG = {
    "architectures": ["MultiModalityCausalLM"],
    "model_type": "multi_modality",
    "language_config": LLM,
    "vision_gen_dec_config": {"cls": "ShallowUViTDecoder", "model_type": "vision_gen_dec", "params": DECODER},
    "vision_gen_enc_config": {"cls": "ShallowUViTEncoder", "model_type": "vision_gen_enc", "params": ENCODER},
    "vision_und_enc_config": {"cls": "CLIPVisionTower", "model_type": "vision_und_enc", "params": TOWER},
}
SCALING = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "VLMImageProcessor",
    "image_size": SIDE,
    "image_std": [0.5, 0.5, 0.5],
    "min_size": 14,
}
QUICK: dict[str, Any] = {"flow": FlowSettings(steps=5)}
"""Options of ``JanusFlow`` for few steps."""


def shape(llm: Any, vision: dict[str, Any], encoder: dict[str, Any], decoder: dict[str, Any]) -> JanusFlowShape:
    """Return sizes from the entries of the configs."""
    from transformers import LlamaConfig, SiglipVisionConfig

    tower = SiglipVisionConfig(**vision, num_attention_heads=16, hidden_act="gelu", vision_use_head=False)
    return JanusFlowShape(LlamaConfig(**llm), tower, UViTSizes.of(encoder), UViTSizes.of(decoder))


def small_shape() -> JanusFlowShape:
    """Return the sizes of the small network."""
    vision = {"hidden_size": VISION, "intermediate_size": 4 * VISION, "num_hidden_layers": 2}
    return shape(LLM, {**vision, "image_size": SIDE, "patch_size": 8}, ENCODER, DECODER)


def published_shape() -> JanusFlowShape:
    """Sizes of the authors' code and of DeepSeek-LLM 1.3B, for shapes without weights."""
    llm = {**LLM, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "vocab_size": 102_400}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 384}
    wide = {"block_out_channels": [768], "hidden_size": 2048}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16}
    decoder = {**DECODER, **wide, "in_channels": 768}
    return shape({**llm, **heads}, {**vision, "patch_size": 16}, {**ENCODER, **wide}, decoder)


def pool_shapes(width: int) -> dict[str, torch.Tensor]:
    """The tensors of the pooling that nobody runs, on the meta device."""
    linear = {"q": (width, width), "kv": (2 * width, width), "proj": (width, width), "mlp.fc1": (4 * width, width)}
    linear["mlp.fc2"] = (width, 4 * width)
    shapes: dict[str, tuple[int, ...]] = {"latent": (1, 1, width), "norm.weight": (width,), "norm.bias": (width,)}
    for name, size in linear.items():
        shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
    return {POOL + name: torch.empty(size, device="meta") for name, size in shapes.items()}


def published_tensors(sizes: JanusFlowShape) -> dict[str, torch.Tensor]:
    """All tensors of a published file, on the meta device."""
    with torch.device("meta"):
        net = JanusFlowNetwork(sizes)
    return {**published_names(net.state_dict()), **pool_shapes(sizes.vision.hidden_size)}


def save_small_janus_flow(folder: Path) -> None:
    """Write a checkpoint folder, with its autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(random_state(published_tensors(small_shape())), folder / WEIGHTS, metadata={"format": "pt"})
    configs = {CONFIG: SMALL_CONFIG, IMAGES: SCALING, PROCESSOR: {"num_image_tokens": TOKENS, "sft_format": "deepseek"}}
    for name, content in configs.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    save_tokenizer(folder)
    save_autoencoder(folder / VAE)


def save_autoencoder(folder: Path, **changes: Any) -> None:
    """As the published one, with fewer levels and narrow ones."""
    from diffusers import AutoencoderKL

    sizes: dict[str, Any] = {
        "block_out_channels": WIDTHS,
        "latent_channels": 4,
        "scaling_factor": LATENT_SCALE,
        **changes,
    }
    levels = len(sizes["block_out_channels"])
    down, up = ("DownEncoderBlock2D",) * levels, ("UpDecoderBlock2D",) * levels
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, **sizes)
    vae.load_state_dict(random_state(vae.state_dict()))
    vae.save_pretrained(folder)


def save_tokenizer(folder: Path) -> None:
    """As DeepSeek's: the first token is named in the settings, and not in the tokenizer's own file."""
    marks = [BOS, EOS, PAD, IMAGE, IMAGE_START, IMAGE_END, GENERATION]
    named = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS}
    tokenizer = byte_tokenizer(marks, named, words=("Yes", "yes", "No", "no", "red"))
    (folder / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "model_max_length": 16384,
        "pad_token": EOS,
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
