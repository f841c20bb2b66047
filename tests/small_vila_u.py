"""A small VILA-U with random weights in the published layout, which VILA-U's own code loads too, for the tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.small_bagel import random_state, random_tensor
from unigap.models.vila_u.checkpoint import PARTS, TOWER, WEIGHTS, published_name
from unigap.models.vila_u.depth_transformer import DepthShape
from unigap.models.vila_u.image_tokenizer import DecoderShape, TokenizerShape
from unigap.models.vila_u.network import VilaUNetwork, VilaUShape

TOKENIZER = Path(__file__).parent / "vila_u_tokenizer"
"""A sentencepiece model, as Llama's, with what transformers makes of it; VILA-U's own code reads the former."""
POSITIONS, DEPTH, CODES = 16, 3, 64
LLM_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
VISION_CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
"""One layer more than runs, as in the published sizes."""
TOWER_CONFIG: dict[str, Any] = {
    "architectures": ["RQVAESIGLIPTransformer"],
    "model_type": "rqvaesigliptransformer_model",
    "hidden_size": 32,
    "rqvaesiglip": {
        "embed_dim": 32,
        "n_embed": CODES,
        "latent_shape": [4, 4, 32],
        "code_shape": [4, 4, DEPTH],
        "shared_codebook": True,
        "restart_unused_codes": True,
        "decoder_latent_shape": None,
        "ddconfig": {
            "double_z": False,
            "z_channels": 32,
            "resolution": 32,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1, 1, 2, 2],
            "num_res_blocks": 1,
            "attn_resolutions": [8],
            "dropout": 0.0,
        },
        "pretrained_model": "siglip",
    },
    "rqtransformer": {
        "block_size": [4, 4, DEPTH],
        "embed_dim": 48,
        "input_embed_dim_1": 32,
        "input_embed_dim_2": 64,
        "vocab_size": CODES,
        "head": {"n_layer": 2, "block": {"n_head": 4}},
    },
}
PROJECTOR_CONFIG = {"model_type": "v2l_projector", "mm_projector_type": "mlp2x_gelu"}
CONFIG = {
    "model_type": "vila_u_llama",
    "architectures": ["VILAULlamaModel"],
    "llm_cfg": LLM_CONFIG,
    "vision_tower_cfg": TOWER_CONFIG,
    "mm_projector_cfg": PROJECTOR_CONFIG,
    "image_aspect_ratio": "resize",
    "mm_use_im_start_end": True,
    "mm_use_vi_start_end": True,
    "mm_use_im_patch_token": False,
}
TEXT_CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
}
"""SigLIP's text model, which the authors' code builds and does not use."""
SIGLIP = "rqvaesiglip.siglip_model."
UNUSED = {
    f"{SIGLIP}logit_scale": (1,),
    f"{SIGLIP}vision_model.post_layernorm.weight": (32,),
    f"{SIGLIP}vision_model.encoder.layers.2.layer_norm1.weight": (32,),
    f"{SIGLIP}text_model.final_layer_norm.weight": (32,),
    "rqvaesiglip.quantizer.codebooks.0.cluster_size_ema": (CODES,),
}
"""Some tensors of a published vision tower that do not run."""


def small_shape() -> VilaUShape:
    from transformers import LlamaConfig, SiglipVisionConfig

    rqvae, heads = TOWER_CONFIG["rqvaesiglip"], TOWER_CONFIG["rqtransformer"]["head"]
    kept = ("z_channels", "resolution", "ch", "out_ch", "ch_mult", "num_res_blocks", "attn_resolutions")
    decoder = DecoderShape(**{name: rqvae["ddconfig"][name] for name in kept})
    vit = SiglipVisionConfig(**{**VISION_CONFIG, "num_hidden_layers": 2})
    depth = DepthShape(DEPTH, CODES, 32, 64, 48, heads["n_layer"], heads["block"]["n_head"])
    return VilaUShape(LlamaConfig(**LLM_CONFIG), TokenizerShape(vit, DEPTH, CODES, True, decoder), depth, "mlp2x_gelu")


def published_shape() -> VilaUShape:
    """Sizes at 256 pixels: LLaMA-2-7B with four more tokens, SigLIP-L, the default depth transformer."""
    from transformers import LlamaConfig, SiglipVisionConfig

    llm = LlamaConfig(
        vocab_size=32_004, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32
    )
    vit = SiglipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, image_size=256,
        patch_size=16,
    )  # fmt: skip
    decoder = DecoderShape(256, 256, 128, 3, (1, 1, 2, 2, 4), 2, (16,))
    depth = DepthShape(4, 16_384, 1024, 4096, 2560, 6, 40)
    return VilaUShape(llm, TokenizerShape(vit, 4, 16_384, True, decoder), depth, "mlp2x_gelu")


def weights_of(part: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """Random weights of a part by their published names, so that two libraries have the same ones."""
    names = {published_name(f"{part}.{name}"): tensor for name, tensor in module.state_dict().items()}
    # logits that guidance makes large would round by more than the tests allow
    return {name: t * 0.3 if "classifier_mlp.linear" in name else t for name, t in random_state(names).items()}


def save_small_vila_u(folder: Path) -> None:
    with torch.device("meta"):
        net = VilaUNetwork(small_shape())
    configs = (LLM_CONFIG, TOWER_CONFIG, PROJECTOR_CONFIG)
    for part, config in zip(PARTS, configs, strict=True):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config, indent=2))
        tensors = {name.partition(".")[2]: t for name, t in weights_of(part, net.get_submodule(part)).items()}
        if part == TOWER:
            tensors |= {name: random_tensor(name, torch.Size(shape)) for name, shape in UNUSED.items()}
        save_file(tensors, folder / part / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (folder / TOWER / "siglip").mkdir()
    siglip = {"model_type": "siglip", "vision_config": VISION_CONFIG, "text_config": TEXT_CONFIG}
    (folder / TOWER / "siglip" / "config.json").write_text(json.dumps(siglip, indent=2))
    shutil.copytree(TOKENIZER, folder / "llm", dirs_exist_ok=True)
