"""Read and write JanusFlow folders in the published layout, with the image autoencoder in a folder of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_transformers
from unigap.models.engine.latent_codec import LatentCodec, autoencoder_class
from unigap.models.files.bounds import check_counts
from unigap.models.files.config import FLOW_PART, JANUS_FLOW, check_family, model_type, read_object, reading
from unigap.models.files.load_options import DTYPES, check_load_options
from unigap.models.files.location import local_folder
from unigap.models.files.tokens import check_has, check_tokens
from unigap.models.files.weights import check_finite_weights, fill, first_not_finite, read_tensors
from unigap.models.janus_flow.chat_template import (
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    PAD,
    ImageScaling,
    JanusFlowProcessor,
)
from unigap.models.janus_flow.flow import FlowSettings
from unigap.models.janus_flow.network import JanusFlowNetwork, JanusFlowShape
from unigap.models.janus_flow.uvit import UViTSizes
from unigap.models.janus_flow.vision_names import POOL, TOWER, our_names, published_names

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, IMAGES, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
SMALL_FILES = (CONFIG, IMAGES, PROCESSOR, *TOKENIZER, "special_tokens_map.json", "generation_config.json")
"""Files next to the weights that a saved folder repeats, if the checkpoint has them."""
SETTINGS = "unigap.json"
"""File of a saved folder with the settings of the flow; the authors' code, which sets them in code, ignores it."""
VAE, VAE_FILES = "vae", ("config.json", "diffusion_pytorch_model.safetensors")
PUBLISHED_VAE = "stabilityai/sdxl-vae"
"""Hub id of the autoencoder that the authors' code loads."""
TOWER_NAME = "siglip_large_patch16_384"
"""Vision encoder that the authors' code builds if config.json names none."""
HEADS = {
    TOWER_NAME: 16,
    "siglip_large_patch16_256": 16,
    "siglip_so400m_patch14_384": 16,
    "siglip_so400m_patch14_224": 16,
}
"""Attention heads of the vision encoders that the authors' code builds, by name; other sizes show in the weights."""


@dataclass(frozen=True)
class JanusFlowParts:
    """Content of a checkpoint folder.

    Attributes:
        net: The network, in eval mode.
        codec: The image autoencoder, in eval mode.
        processor: Tokenizer and image sizes.
        small_files: Bytes of the files next to the weights, by name.
        unused: Published tensors that nothing reads, by name.
        flow: How images are sampled, and how given images are measured.
    """

    net: JanusFlowNetwork
    codec: LatentCodec
    processor: JanusFlowProcessor
    small_files: Mapping[str, bytes]
    unused: Mapping[str, torch.Tensor]
    flow: FlowSettings = FlowSettings()  # noqa: RUF009 (frozen)


def janus_flow_from_folder(
    checkpoint: str, dtype: str, attn_implementation: str, device: str, vae: str | None
) -> JanusFlowParts:
    """Load a checkpoint folder or a hub id in the layout of ``deepseek-ai/JanusFlow-1.3B``.

    Args:
        checkpoint: The folder or hub id.
        dtype: Precision of the network.
        attn_implementation: ``sdpa`` or ``eager``.
        device: Device of the weights.
        vae: Folder or hub id of the image autoencoder; ``None`` is the folder ``vae`` in the checkpoint or, if it has
            none, ``stabilityai/sdxl-vae``.

    Raises:
        ValueError: It is not a sound JanusFlow checkpoint (names it and the fault), or an option cannot be honoured.
    """
    check_load_options(dtype, attn_implementation, device)
    autoencoder_class()
    check_family(checkpoint, model_type(checkpoint), [JANUS_FLOW])
    stored = [WEIGHTS, INDEX, "model-*.safetensors", SETTINGS, *SMALL_FILES, *(f"{VAE}/{name}" for name in VAE_FILES)]
    folder = local_folder(checkpoint, stored)
    for name in (IMAGES, PROCESSOR, *TOKENIZER):
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint {checkpoint!r} has no {name}; download it")
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise ValueError(f"checkpoint {checkpoint!r} has no {WEIGHTS}; only safetensors files are read, no pickles")
    config, images, sizes = (read_object(checkpoint, folder, name) for name in (CONFIG, IMAGES, PROCESSOR))
    check_counts(checkpoint, config)
    codec = _codec(checkpoint, folder, vae)
    try:
        settings = _settings(folder / SETTINGS)
        state = _weights(folder)
        shape = _shape(config, state)
        net = _filled(shape, state, attn_implementation, DTYPES[dtype])
        processor = _processor(folder, images, sizes)
        _check_fit(shape, codec, processor)
    except Exception as error:  # a damaged folder raises exceptions without a common class
        reason = shortened(str(error)) or type(error).__name__
        raise ValueError(f"checkpoint {checkpoint!r} does not load as JanusFlow: {reason}; restore it") from error
    marks = [IMAGE, IMAGE_START, IMAGE_END]
    check_tokens(checkpoint, processor.tokenizer, int(shape.llm.vocab_size), marks)
    check_finite_weights(checkpoint, dict(net.named_parameters()))
    files = {name: (folder / name).read_bytes() for name in SMALL_FILES if (folder / name).is_file()}
    unused = {name: tensor for name, tensor in state.items() if name.startswith(POOL)}
    return JanusFlowParts(net.to(device).eval(), codec.to(device), processor, files, unused, settings)


def write_folder(parts: JanusFlowParts, folder: str | Path) -> None:
    """Write a folder that JanusFlow's own code loads, with the image autoencoder in the folder ``vae``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.small_files.items():
        (folder / name).write_bytes(content)
    (folder / SETTINGS).write_text(
        json.dumps({"flow": dataclasses.asdict(parts.flow)}, indent=2) + "\n", encoding="utf-8"
    )
    state = {**published_names(parts.net.state_dict()), **parts.unused}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    parts.codec.vae.save_pretrained(folder / VAE)


def _settings(path: Path) -> FlowSettings:
    """Return the flow's settings in a saved folder; those of the authors if it has none."""
    if not path.is_file():
        return FlowSettings()
    with reading(path):
        return FlowSettings(**json.loads(path.read_text(encoding="utf-8"))["flow"])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the published tensors, in one file or in several."""
    if (folder / WEIGHTS).is_file():
        return read_tensors(folder / WEIGHTS)
    with reading(folder / INDEX):
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        outside = next((name for name in names if Path(name).name != name), None)
        if outside:
            raise ValueError(f"{outside!r} is not a file of this folder")
    state: dict[str, torch.Tensor] = {}
    for name in names:
        state |= read_tensors(folder / name)
    return state


def _shape(config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> JanusFlowShape:
    """Return the sizes of the network by config.json; those of the vision encoder by its weights."""
    with reading(Path(CONFIG)):
        encoder = UViTSizes.of(config["vision_gen_enc_config"]["params"])
        decoder = UViTSizes.of(config[FLOW_PART]["params"])
        tower = config["vision_und_enc_config"]["params"]
        own = {name: value for name, value in config["language_config"].items() if "attn_implementation" not in name}
        if tower.get("pixel_mean") or tower.get("pixel_std"):
            raise ValueError(
                "vision_und_enc_config normalises pixels itself (pixel_mean, pixel_std), which is not read"
            )
        name = tower.get("model_name", TOWER_NAME)
        if name not in HEADS:
            raise ValueError(f"model_name {name!r} is none of {', '.join(HEADS)}")
        # transformers' defaults are those with which the authors' code completes this entry
        return JanusFlowShape(LlamaConfig(**own), _vision(tower, state), encoder, decoder)


def _vision(tower: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> SiglipVisionConfig:
    patch, hidden = f"{TOWER}patch_embed.proj.weight", f"{TOWER}blocks.0.mlp.fc1.weight"
    for name in (patch, hidden):
        if name not in state:
            raise ValueError(f"the weights {name!r} are missing")
    layers = {name.removeprefix(TOWER).split(".")[1] for name in state if name.startswith(f"{TOWER}blocks.")}
    return SiglipVisionConfig(
        hidden_size=state[patch].shape[0],
        intermediate_size=len(state[hidden]),
        num_hidden_layers=len(layers),
        num_attention_heads=HEADS[tower.get("model_name", TOWER_NAME)],
        image_size=tower.get("image_size", 336),
        patch_size=state[patch].shape[-1],
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        vision_use_head=False,
    )


def _filled(
    shape: JanusFlowShape, state: Mapping[str, torch.Tensor], attn_implementation: str, dtype: torch.dtype
) -> JanusFlowNetwork:
    """Build a network with exactly these tensors.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape.
    """
    with torch.device("meta"):
        net = JanusFlowNetwork(shape, attn_implementation)
    fill(net, {name: tensor.to(dtype) for name, tensor in our_names(state).items()})
    # these tables are not weights and are still on the meta device
    net.language_model.model.rotary_emb = LlamaRotaryEmbedding(shape.llm)
    net.vision_und_enc_model.embeddings.position_ids = torch.arange(shape.image_tokens)[None]
    return net


def _codec(checkpoint: str, folder: Path, vae: str | None) -> LatentCodec:
    """Load the image autoencoder.

    Raises:
        ValueError: It is missing, damaged or no such autoencoder; names it.
    """
    own = folder / VAE
    source = vae or (str(own) if own.is_dir() else PUBLISHED_VAE)
    where = local_folder(source, VAE_FILES)
    if not (where / VAE_FILES[1]).is_file():
        raise ValueError(f"checkpoint {source!r} has no {VAE_FILES[1]}; only safetensors files are read, no pickles")
    scale = read_object(source, where, VAE_FILES[0]).get("scaling_factor")
    if not isinstance(scale, float):
        raise ValueError(f"checkpoint {source!r}: config.json has no number scaling_factor; take {PUBLISHED_VAE}")
    loading: dict[str, Any] = {"use_safetensors": True, "low_cpu_mem_usage": False, "output_loading_info": True}
    try:
        loaded, report = autoencoder_class().from_pretrained(where, **loading)
    except Exception as error:  # a damaged folder raises exceptions without a common class
        reason = shortened(str(error)) or type(error).__name__
        raise ValueError(f"checkpoint {source!r} does not load as an image autoencoder: {reason}") from error
    for kind in ("missing", "unexpected"):
        if report[f"{kind}_keys"]:
            first = sorted(report[f"{kind}_keys"])[0]
            raise ValueError(f"checkpoint {source!r}: the weights {first!r} are {kind}; take {PUBLISHED_VAE}")
    broken = first_not_finite(dict(loaded.named_parameters()))
    if broken:
        raise ValueError(f"checkpoint {source!r}: the weights {broken!r} are not finite; download it anew")
    return LatentCodec(loaded.float().eval().requires_grad_(False), scale)


def _processor(folder: Path, images: Mapping[str, Any], sizes: Mapping[str, Any]) -> JanusFlowProcessor:
    """Load the tokenizer as the authors' processor does, and the sizes of its images."""
    try:
        named = json.loads((folder / TOKENIZER[1]).read_text(encoding="utf-8"))
        # the authors' class puts the first token there by these settings, whatever the tokenizer's own file says
        usual = {"add_bos_token": True, "add_eos_token": False}
        marks: dict[str, Any] = {name: bool(named.get(name, value)) for name, value in usual.items()}
        with quiet_transformers():
            # AutoTokenizer would rebuild a Llama tokenizer, which splits words in another way
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder, **marks)
    except Exception as error:  # a damaged file raises exceptions without a common class
        raise ValueError(f"its tokenizer: {error}") from error
    check_has(tokenizer, (IMAGE, IMAGE_START, IMAGE_END))
    tokenizer.pad_token = PAD if PAD in tokenizer.get_vocab() else tokenizer.eos_token
    with reading(folder / IMAGES):
        side = int(images["image_size"])
        scaling = ImageScaling({"height": side, "width": side}, images["image_mean"], images["image_std"])
    with reading(folder / PROCESSOR):
        return JanusFlowProcessor(tokenizer, scaling, int(sizes["num_image_tokens"]))


def _check_fit(shape: JanusFlowShape, codec: LatentCodec, processor: JanusFlowProcessor) -> None:
    """Check that the parts agree on the size of an image and of its latents.

    Raises:
        ValueError: They do not.
    """
    width, patch = shape.patch**2 * shape.channels, codec.side // 2
    if codec.width != width or shape.patch != 2:
        raise ValueError(
            f"its image autoencoder has {codec.width // 4} latent channels, and the encoder reads {shape.channels} in "
            f"squares of {shape.patch}; take {PUBLISHED_VAE}"
        )
    side = processor.image_processor.size["height"]
    generated = (side // codec.side) ** 2
    counts = (processor.num_image_tokens, shape.image_tokens, generated)
    if side != shape.image_size or side % codec.side or len(set(counts)) > 1:
        raise ValueError(
            f"{PROCESSOR} says {counts[0]} tokens an image; {counts[1]} are read at {shape.image_size} pixels and "
            f"{counts[2]} generated at {side} with {patch} pixels a latent; take all files of one checkpoint"
        )
