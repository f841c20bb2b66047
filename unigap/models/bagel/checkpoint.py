"""Read and write BAGEL folders in the published layout."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase, Qwen2Config, SiglipVisionConfig
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from unigap.console.mistakes import shortened
from unigap.models.bagel.chat_template import MARKS
from unigap.models.bagel.experts import GENERATION
from unigap.models.bagel.flow import FlowSettings
from unigap.models.bagel.network import BagelNetwork, BagelShape
from unigap.models.bagel.vae import codec_from_published, published
from unigap.models.engine.latent_codec import LatentCodec, autoencoder_class
from unigap.models.files.config import check_family, model_type, reading
from unigap.models.files.load_options import DTYPES, check_load_options
from unigap.models.files.location import local_folder
from unigap.models.files.published_layout import read_part, read_tokenizer
from unigap.models.files.weights import check_finite_weights, fill, read_tensors

MODEL_TYPE = "bagel"
WEIGHTS, VAE, LLM, VIT = "ema.safetensors", "ae.safetensors", "llm_config.json", "vit_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
SMALL_FILES = ("config.json", LLM, VIT, *TOKENIZER, "generation_config.json", "preprocessor_config.json")
"""Files next to the weights that a saved folder repeats, if the checkpoint has them."""
SETTINGS = "unigap.json"
"""File of a saved folder with the settings of the model; the authors' code, which sets them in code, ignores it."""
TABLE, LAYERS = "latent_pos_embed.pos_embed", "num_hidden_layers"


@dataclass(frozen=True)
class BagelParts:
    """Content of a checkpoint folder.

    Attributes:
        net: The network, in eval mode.
        codec: The image autoencoder, in eval mode.
        tokenizer: A transformers tokenizer.
        small_files: Bytes of the files next to the weights, by name.
        image_size: Pixels per side of generated images; ``None`` is the most that there are positions for.
        flow: How images are sampled, and how given images are measured.
    """

    net: BagelNetwork
    codec: LatentCodec
    tokenizer: PreTrainedTokenizerBase
    small_files: Mapping[str, bytes]
    image_size: int | None = None
    flow: FlowSettings = FlowSettings()  # noqa: RUF009 (frozen)


def bagel_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> BagelParts:
    """Load a checkpoint folder or a hub id in the layout of ``ByteDance-Seed/BAGEL-7B-MoT``.

    Raises:
        ValueError: It is not a sound BAGEL checkpoint (names it and the fault), or an option cannot be honoured.
    """
    check_load_options(dtype, attn_implementation, device)
    autoencoder_class()
    check_family(checkpoint, model_type(checkpoint), [MODEL_TYPE])
    folder = local_folder(checkpoint, [WEIGHTS, VAE, SETTINGS, *SMALL_FILES])
    for name in (WEIGHTS, VAE, LLM, VIT):
        if not (folder / name).is_file():
            raise ValueError(
                f"checkpoint {checkpoint!r} has no {name}; download it, only safetensors files and their configs are "
                "read"
            )
    llm, vit = (read_part(checkpoint, folder, name, [LAYERS]) for name in (LLM, VIT))
    try:
        settings = _settings(folder / SETTINGS)
        state = read_tensors(folder / WEIGHTS)
        shape = _shape(llm, vit, state)
        net = _filled(shape, state, attn_implementation, DTYPES[dtype])
        codec = _codec(read_tensors(folder / VAE), shape.latent_width)
        tokenizer = read_tokenizer(folder, MARKS, shape.llm.vocab_size)
    except Exception as error:  # a damaged folder raises exceptions without a common class
        reason = shortened(str(error)) or type(error).__name__
        raise ValueError(f"checkpoint {checkpoint!r} does not load as BAGEL: {reason}; restore it") from error
    check_finite_weights(checkpoint, {**dict(net.named_parameters()), **dict(codec.named_parameters())})
    files = {name: (folder / name).read_bytes() for name in SMALL_FILES if (folder / name).is_file()}
    return BagelParts(net.to(device).eval(), codec.to(device).eval(), tokenizer, files, *settings)


def write_folder(parts: BagelParts, folder: str | Path) -> None:
    """Write a folder that BAGEL's own code loads: weights, small files as they were read, and settings."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.small_files.items():
        (folder / name).write_bytes(content)
    settings = {"image_size": parts.image_size, "flow": dataclasses.asdict(parts.flow)}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for name, state in ((WEIGHTS, parts.net.state_dict()), (VAE, published(parts.codec))):
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})


def _settings(path: Path) -> tuple[int | None, FlowSettings]:
    """Return the image size and the flow's settings in a saved folder; those of the authors if it has none."""
    if not path.is_file():
        return None, FlowSettings()
    with reading(path):
        settings = json.loads(path.read_text(encoding="utf-8"))
        size = settings["image_size"]
        return None if size is None else int(size), FlowSettings(**settings["flow"])


def _shape(llm: Mapping[str, Any], vit: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> BagelShape:
    """Return the sizes of the network by its two configs and its table of latent positions."""
    # the authors untie the embeddings and leave out the last layer of the encoder in code
    vision = SiglipVisionConfig(**{**vit, LAYERS: vit[LAYERS] - 1})
    for name in (TABLE, "vae2llm.weight"):
        if name not in state:
            raise ValueError(f"the weights {name!r} are missing")
    side = math.isqrt(len(state[TABLE]))
    language = Qwen2Config(**{**llm, "tie_word_embeddings": False})
    return BagelShape(language, vision, side, state["vae2llm.weight"].shape[1])


def _filled(
    shape: BagelShape, state: Mapping[str, torch.Tensor], attn_implementation: str, dtype: torch.dtype
) -> BagelNetwork:
    """Build a network with exactly these tensors.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape.
    """
    with torch.device("meta"):
        net = BagelNetwork(shape, attn_implementation)
    if not any(GENERATION in name for name in state):
        raise ValueError(f"the weights have no generation expert ({GENERATION!r}), as a plain Qwen2 has none")
    fill(net, {name: tensor.to(dtype) for name, tensor in state.items()})
    # its tables are not weights and are still on the meta device
    net.language_model.model.rotary_emb = Qwen2RotaryEmbedding(shape.llm)
    return net


def _codec(state: Mapping[str, torch.Tensor], width: int) -> LatentCodec:
    try:
        codec = codec_from_published(state)
    except ValueError as error:
        raise ValueError(f"{VAE}: {error}") from error
    if codec.width != width:
        raise ValueError(f"{VAE} writes tokens of {codec.width} numbers, {WEIGHTS} reads {width}")
    return codec
