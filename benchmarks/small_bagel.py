"""A small BAGEL with random weights in the published layout, which BAGEL's own code loads too."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.byte_words import byte_tokenizer
from unigap.models.bagel import FlowSettings
from unigap.models.bagel.chat_template import MARKS
from unigap.models.bagel.checkpoint import LLM, VAE, VIT, WEIGHTS
from unigap.models.bagel.network import BagelNetwork, BagelShape
from unigap.models.bagel.vae import OFFSET, SCALE, published
from unigap.models.engine.latent_codec import LatentCodec

PAD = "<|endoftext|>"
LLM_CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
VIT_CONFIG = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
"""One layer more than runs, as in the published file."""
LATENT_SIDE, LATENT_WIDTH, WIDTHS = 8, 16, (32, 32, 64)
QUICK: dict[str, Any] = {"image_size": 32, "flow": FlowSettings(timesteps=6)}
"""Options of ``Bagel`` for 4 x 4 tokens and few steps."""


def small_shape() -> BagelShape:
    """Return the sizes of the small network."""
    from transformers import Qwen2Config, SiglipVisionConfig

    vit = SiglipVisionConfig(**{**VIT_CONFIG, "num_hidden_layers": VIT_CONFIG["num_hidden_layers"] - 1})
    return BagelShape(Qwen2Config(**LLM_CONFIG), vit, LATENT_SIDE, LATENT_WIDTH)


def published_shape() -> BagelShape:
    """Sizes of Qwen2.5-7B and of SigLIP-so400m at 980 pixels, for shapes without weights."""
    from transformers import Qwen2Config, SiglipVisionConfig

    llm = Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4,
    )  # fmt: skip
    vit = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=980,
        patch_size=14,
    )  # fmt: skip
    return BagelShape(llm, vit, 64, 64)


def random_tensor(name: str, shape: torch.Size) -> torch.Tensor:
    """Weights that follow from their name, so that two libraries have the same ones."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) == 1 and name.endswith("weight"):
        # attention is sharp, so that what a token becomes depends on the others
        return numbers.mul(0.2).add(3.0 if "self_attn.q_norm" in name else 1.0)
    if len(shape) == 1:
        return numbers * 0.1
    if "pos_embed" in name or "embedding" in name or "embed_tokens" in name:
        return numbers * 0.5
    inputs = shape[1:].numel()
    return numbers * (1.5 / inputs) ** 0.5


def random_state(names: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return random weights for tensors, which only lend their names and shapes."""
    return {name: random_tensor(name, tensor.shape) for name, tensor in names.items()}


def small_codec() -> LatentCodec:
    """Untrained, with random weights of its own."""
    from diffusers import AutoencoderKL

    levels = len(WIDTHS)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=WIDTHS,
        latent_channels=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return LatentCodec(vae, SCALE, OFFSET)


def save_small_bagel(folder: Path) -> None:
    """Write a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        net, codec = BagelNetwork(small_shape()), small_codec()
    save_file(random_state(net.state_dict()), folder / WEIGHTS, metadata={"format": "pt"})
    save_file(random_state(published(codec)), folder / VAE, metadata={"format": "pt"})
    configs = {"config.json": {"model_type": "bagel"}, LLM: LLM_CONFIG, VIT: VIT_CONFIG}
    for name, content in configs.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """Files as Qwen2's: the fast tokenizer, its settings, and the vocabulary and merges of the slow one."""
    words = ("Yes", "yes", "No", "no", "red")
    tokenizer = byte_tokenizer([PAD, *MARKS], {"pad_token": PAD, "eos_token": MARKS[1]}, words=words)
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    marks = {token["content"]: token["id"] for token in core["added_tokens"]}
    vocabulary = {word: number for word, number in core["model"]["vocab"].items() if word not in marks}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": mark, **flags} for mark, number in marks.items()},
        "additional_special_tokens": list(MARKS),
        "bos_token": None,
        "eos_token": MARKS[1],
        "pad_token": PAD,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer.json").write_text(json.dumps(core, ensure_ascii=False), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in core["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
