"""An untrained VILA-U with two residual codes a cell, its configs, and a word-level tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from unigap.models.vila_u import VilaU
from unigap.models.vila_u.chat_template import MARKS, SYSTEM
from unigap.models.vila_u.checkpoint import MODEL_TYPE, PARTS, SETTINGS, TOWER, VilaUParts, untrained_parts
from unigap.models.vila_u.image_tokenizer import ImageTokenizer as ResidualTokenizer
from unigap.worlds.shapes.grammar import WORDS
from unigap.worlds.shapes.scenes import CELL, GRID, IMAGE_SIZE
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer
from unigap.worlds.shapes.tokenizer_training.named_codes import NamedCodes
from unigap.worlds.shapes.untrained.base import UntrainedModel
from unigap.worlds.shapes.untrained.initial_scale import spread_linears, spread_words
from unigap.worlds.shapes.untrained.words import BOS, EOS, PAD, SPEECH, UNK, word_tokenizer

_SPEAKERS = ("user", "assistant")
_POINTS = ("'", ",")
VISION_WIDTH, VISION_LAYERS = 64, 2
"""Width of the vision encoder, which is that of a code vector, and the number of layers that run."""


class UntrainedVilaU(UntrainedModel):
    """A VILA-U of about 2 M parameters.

    Args:
        hidden_size: Width of the shared LLM and of the depth transformer.
        layers: Number of layers of the shared LLM.
        n_codes: Size of the codebook, which all depths share.
        depth: Codes of an image position.
    """

    def __init__(self, hidden_size: int = 128, layers: int = 4, n_codes: int = 64, depth: int = 2) -> None:
        super().__init__(hidden_size, layers, n_codes)
        self.depth = depth

    def model(self) -> VilaU:
        with TemporaryDirectory() as folder:
            write_small_files(Path(folder), self.hidden_size, self.layers, self.n_codes, self.depth)
            parts = untrained_parts(Path(folder))
        _initialise(parts)
        return VilaU.from_parts(parts)

    def tokenizer(self, model: Any) -> NamedCodes:
        return NamedCodes(VilaUTokenizer(model.net.image_tokenizer), depth=self.depth)


class VilaUTokenizer(ImageTokenizer):
    """The differentiable parts of VILA-U's image tokenizer with one codebook.

    Args:
        residual: The tokenizer.
    """

    def __init__(self, residual: ResidualTokenizer) -> None:
        super().__init__()
        self.residual = residual

    @property
    def codes(self) -> torch.Tensor:
        return self.residual.quantizer.table(0)

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.residual.features(pixels_BCHW).transpose(1, 2).reshape(len(pixels_BCHW), -1, GRID, GRID)

    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        return self.residual.reconstruct(code_BDHW.flatten(2).transpose(1, 2))


def make_words() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the embedded world's words and of VILA-U's chats."""
    chat = SYSTEM.lower().translate(str.maketrans("',.", "   ")).split()
    words = (PAD, BOS, EOS, UNK, *MARKS, *dict.fromkeys([*_SPEAKERS, *_POINTS, *chat, "s", *SPEECH, *WORDS]))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(words),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKS)}, replace_extra_special_tokens=False)
    return tokenizer


def write_small_files(folder: Path, hidden_size: int, layers: int, n_codes: int, depth: int) -> None:
    """Write the configs and the tokenizer of a folder in VILA-U's published layout, without weights."""
    words = make_words()
    configs = (_llm_config(words, hidden_size, layers), _tower_config(hidden_size, n_codes, depth), _PROJECTOR)
    for part, config in zip(PARTS, configs, strict=True):
        _write(folder / part / "config.json", config)
    _write(folder / TOWER / "siglip" / "config.json", {"model_type": "siglip", "vision_config": _VISION})
    keys = ("llm_cfg", "vision_tower_cfg", "mm_projector_cfg")
    root = {"model_type": MODEL_TYPE, "image_aspect_ratio": "resize", "mm_use_im_start_end": True}
    _write(folder / "config.json", {**root, **dict(zip(keys, configs, strict=True))})
    _write(folder / SETTINGS, {"cfg": 1.0})
    words.save_pretrained(folder / PARTS[0])


_PROJECTOR = {"model_type": "v2l_projector", "mm_projector_type": "mlp2x_gelu"}
_VISION = {
    "hidden_size": VISION_WIDTH,
    "intermediate_size": 2 * VISION_WIDTH,
    "num_hidden_layers": VISION_LAYERS + 1,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": CELL,
}


def _llm_config(words: PreTrainedTokenizerFast, hidden_size: int, layers: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "vocab_size": len(words),
        "max_position_embeddings": 256,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "tie_word_embeddings": False,
    }


def _tower_config(hidden_size: int, n_codes: int, depth: int) -> dict[str, Any]:
    decoder = {"z_channels": VISION_WIDTH, "resolution": IMAGE_SIZE, "in_channels": 3, "out_ch": 3, "ch": 32}
    levels = {"ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    tokenizer = {
        "embed_dim": VISION_WIDTH,
        "n_embed": n_codes,
        "latent_shape": [GRID, GRID, VISION_WIDTH],
        "code_shape": [GRID, GRID, depth],
        "shared_codebook": True,
        "ddconfig": {**decoder, **levels},
        "pretrained_model": "siglip",
    }
    heads = {
        "block_size": [GRID, GRID, depth],
        "embed_dim": hidden_size,
        "input_embed_dim_1": VISION_WIDTH,
        "input_embed_dim_2": hidden_size,
        "vocab_size": n_codes,
        "head": {"n_layer": 2, "block": {"n_head": 4}},
    }
    return {
        "architectures": ["RQVAESIGLIPTransformer"],
        "model_type": "rqvaesigliptransformer_model",
        "hidden_size": VISION_WIDTH,
        "rqvaesiglip": tokenizer,
        "rqtransformer": heads,
    }


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _initialise(parts: VilaUParts) -> None:
    net, tokenizer = parts.net, parts.net.image_tokenizer
    spread_linears(tokenizer.vision_encoder, net.depth_transformer, net.mm_projector, net.llm)
    spread_words(net.llm.model.embed_tokens, net.llm.config.pad_token_id)
    nn.init.normal_(tokenizer.vision_encoder.embeddings.position_embedding.weight, std=0.25)
    with torch.no_grad():
        tokenizer.quantizer.table(0).normal_(std=0.5)
