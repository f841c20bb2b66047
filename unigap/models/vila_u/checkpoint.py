"""Read and write VILA-U folders in the published layout."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, PreTrainedTokenizerBase, SiglipVisionConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from unigap.console.mistakes import shortened
from unigap.models.base import SamplingRecipe
from unigap.models.files.config import check_family, model_type, reading
from unigap.models.files.load_options import DTYPES, check_load_options
from unigap.models.files.location import local_folder
from unigap.models.files.published_layout import read_part, read_tokenizer
from unigap.models.files.weights import check_finite_weights, check_tensors, read_tensors
from unigap.models.vila_u.chat_template import MARKS
from unigap.models.vila_u.depth_transformer import DepthShape
from unigap.models.vila_u.image_tokenizer import DecoderShape, TokenizerShape
from unigap.models.vila_u.network import VilaUNetwork, VilaUShape

MODEL_TYPE = "vila_u_llama"
LLM, TOWER, PROJECTOR = PARTS = ("llm", "vision_tower", "mm_projector")
"""Folders of a checkpoint."""
WEIGHTS = "model.safetensors"
"""File of the weights in each folder that is written; large ones are published in several files."""
SETTINGS = "unigap.json"
"""File with the recommended guidance scale; the authors' code, which sets it in code, ignores it."""
SMALL_SUFFIXES = (".json", ".model", ".txt")
"""Endings of the files that a saved folder repeats."""
USUAL_CFG = 3.0
"""Guidance scale of the authors' code."""
LAYERS = "num_hidden_layers"
SIGLIP = "google/siglip-large-patch16-256"
"""Vision encoder of a checkpoint that names none."""
KNOWN_SIGLIP: Mapping[str, tuple[int, ...]] = {
    SIGLIP: (1024, 4096, 24, 16, 256, 16),
    "google/siglip-so400m-patch14-384": (1152, 4304, 27, 16, 384, 14),
}
"""Sizes of the published vision encoders, in the order of ``SIGLIP_SIZES``: a checkpoint only has their names."""
SIGLIP_SIZES = ("hidden_size", "intermediate_size", LAYERS, "num_attention_heads", "image_size", "patch_size")


@dataclass(frozen=True)
class VilaUParts:
    """Content of a checkpoint folder.

    Attributes:
        net: The network, in eval mode.
        tokenizer: A transformers tokenizer.
        small_files: Bytes of the files next to the weights, by path in the folder.
        unused: Tensors of the vision tower that do not run, such as SigLIP's text model; saved again as they are.
        cfg: Recommended guidance scale.
    """

    net: VilaUNetwork
    tokenizer: PreTrainedTokenizerBase
    small_files: Mapping[str, bytes]
    unused: Mapping[str, torch.Tensor] = field(default_factory=dict)
    cfg: float = USUAL_CFG


def vila_u_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> VilaUParts:
    """Load a checkpoint folder or a hub id in the layout of ``mit-han-lab/vila-u-7b-256``.

    Raises:
        ValueError: It is not a sound VILA-U checkpoint (names it and the fault), or an option cannot be honoured.
    """
    check_load_options(dtype, attn_implementation, device)
    check_family(checkpoint, model_type(checkpoint), [MODEL_TYPE])
    folder = local_folder(
        checkpoint, [f"{part}*{end}" for part in ("", "*/") for end in (*SMALL_SUFFIXES, ".safetensors")]
    )
    for part in PARTS:
        if not any((folder / part).glob("*.safetensors")):
            raise ValueError(
                f"checkpoint {checkpoint!r} has no {part}/{WEIGHTS}; download it, only safetensors files are read"
            )
    configs = _configs(checkpoint, folder)
    try:
        shape = _shape(configs, folder / TOWER)
        net, unused = _filled(shape, folder, attn_implementation, DTYPES[dtype])
        tokenizer = _tokenizer(folder / LLM, shape.llm.vocab_size)
        cfg = _cfg(folder / SETTINGS)
    except Exception as error:  # a damaged folder raises exceptions without a common class
        reason = shortened(str(error)) or type(error).__name__
        raise ValueError(f"checkpoint {checkpoint!r} does not load as VILA-U: {reason}; restore it") from error
    check_finite_weights(checkpoint, dict(net.named_parameters()))
    return VilaUParts(net.to(device).eval(), tokenizer, _small_files(folder), unused, cfg)


def untrained_parts(folder: Path) -> VilaUParts:
    """Return a freshly initialised network with the sizes and the tokenizer of a folder without weights.

    Raises:
        ValueError: The configs describe no VILA-U, or the tokenizer does not fit.
    """
    shape = _shape(_configs(str(folder), folder), folder / TOWER)
    tokenizer = _tokenizer(folder / LLM, shape.llm.vocab_size)
    return VilaUParts(VilaUNetwork(shape), tokenizer, _small_files(folder), cfg=_cfg(folder / SETTINGS))


def write_folder(parts: VilaUParts, folder: str | Path) -> None:
    """Write a folder that VILA-U's own code loads: weights, and small files as they were read."""
    folder = Path(folder)
    for name, content in parts.small_files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for part in PARTS:
        module: nn.Module = getattr(parts.net, part)
        tensors = {
            published_name(name): tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()
        }
        (folder / part).mkdir(parents=True, exist_ok=True)
        more = parts.unused if part == TOWER else {}
        save_file({**tensors, **more}, folder / part / WEIGHTS, metadata={"format": "pt"})


def _configs(checkpoint: str, folder: Path) -> list[dict[str, Any]]:
    """Return the configs of the parts."""
    return [read_part(checkpoint, folder, f"{part}/config.json", [LAYERS] if part == LLM else ()) for part in PARTS]


def _shape(configs: Sequence[Mapping[str, Any]], folder: Path) -> VilaUShape:
    """Return the sizes of a network by the configs of its parts; ``folder`` is that of the vision tower."""
    llm, tower, projector = configs
    try:
        rqvae, depth = tower["rqvaesiglip"], tower["rqtransformer"]
        tokenizer = _tokenizer_shape(rqvae, folder)
        heads = DepthShape(
            depth=tokenizer.depth,
            n_codes=tokenizer.n_codes,
            code_width=tokenizer.vit.hidden_size,
            trunk_width=llm["hidden_size"],
            width=depth["embed_dim"],
            layers=depth["head"]["n_layer"],
            heads=depth["head"]["block"]["n_head"],
        )
        said = {"rqtransformer.vocab_size": depth["vocab_size"], "rqtransformer.block_size": depth["block_size"][-1]}
        kind = projector["mm_projector_type"]
    except KeyError as error:
        raise ValueError(f"its configs have no {error.args[0]!r}") from error
    for (name, found), expected in zip(said.items(), (tokenizer.n_codes, tokenizer.depth), strict=True):
        if found != expected:
            raise ValueError(f"{name} is {found} in {TOWER}/config.json, and the image tokenizer has {expected}")
    # dropout would make likelihoods random
    config = LlamaConfig.from_dict({**llm, "attention_dropout": 0.0})
    return VilaUShape(config, tokenizer, heads, kind)


def _tokenizer_shape(rqvae: Mapping[str, Any], folder: Path) -> TokenizerShape:
    vit, (rows, columns, depth) = _siglip(rqvae.get("pretrained_model") or SIGLIP, folder), rqvae["code_shape"]
    decoder = rqvae["ddconfig"]
    grid, n_codes = rqvae.get("decoder_latent_shape"), rqvae["n_embed"]
    sizes = set(n_codes) if isinstance(n_codes, list) else {n_codes}
    shape = TokenizerShape(
        vit,
        depth,
        min(sizes),
        bool(rqvae.get("shared_codebook")),
        DecoderShape(**{part.name: decoder[part.name] for part in fields(DecoderShape)}),
        None if grid is None else (grid[0], grid[1]),
    )
    if len(sizes) > 1:
        raise ValueError(f"its codebooks have {sorted(sizes)} codes, and only equal sizes are known")
    if (rows, columns) != (shape.grid, shape.grid) or list(rqvae["latent_shape"][:2]) != [rows, columns]:
        raise ValueError(f"code_shape is {rqvae['code_shape']}, and its vision encoder has {shape.grid} x {shape.grid}")
    return shape


def _siglip(name: str, folder: Path) -> SiglipVisionConfig:
    """Return the config of a vision encoder that a config names, with the number of layers that run."""
    if name in KNOWN_SIGLIP:
        config: dict[str, Any] = dict(zip(SIGLIP_SIZES, KNOWN_SIGLIP[name], strict=True))
    elif (folder / name / "config.json").is_file():
        config = read_part(name, folder / name, "config.json")["vision_config"]
    else:
        known = " or ".join(KNOWN_SIGLIP)
        raise ValueError(f"the vision encoder {name!r} is neither {known} nor a folder in {TOWER}")
    # the authors leave out the last layer of the encoder in code
    return SiglipVisionConfig(**{**config, LAYERS: config[LAYERS] - 1, "attention_dropout": 0.0})


def _filled(
    shape: VilaUShape, folder: Path, attn_implementation: str, dtype: torch.dtype
) -> tuple[VilaUNetwork, dict[str, torch.Tensor]]:
    """Build a network with the stored tensors; return it and the tensors that do not run.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape.
    """
    with torch.device("meta"):
        net = VilaUNetwork(shape, attn_implementation)
    stored = {part: _stored(folder / part) for part in PARTS}
    unused = _unused(stored[TOWER], shape)
    for part in PARTS:
        module: nn.Module = getattr(net, part)
        names = {published_name(name): name for name in module.state_dict()}
        state = {name: tensor for name, tensor in stored[part].items() if part != TOWER or name not in unused}
        check_tensors({theirs: module.state_dict()[name] for theirs, name in names.items()}, state)
        module.load_state_dict({names[theirs]: tensor.to(dtype) for theirs, tensor in state.items()}, assign=True)
    net.requires_grad_(False)
    # the image tokenizer stays in float32, and so do the vectors of its codes
    kept = {name: stored[TOWER][published_name(f"rqvaesiglip.{name}")] for name in net.image_tokenizer.state_dict()}
    net.image_tokenizer.load_state_dict({name: tensor.float() for name, tensor in kept.items()}, assign=True)
    restore_tables(net)
    return net, unused


def restore_tables(net: VilaUNetwork) -> None:
    """Compute the tables that are no weights, on the CPU, after a network was built on the meta device."""
    embeddings = net.image_tokenizer.vision_encoder.embeddings
    embeddings.register_buffer("position_ids", torch.arange(net.shape.positions)[None], persistent=False)
    net.llm.model.rotary_emb = LlamaRotaryEmbedding(net.shape.llm)


def _stored(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a part, in one file or several."""
    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= read_tensors(path)
    # older checkpoints store frequencies, which transformers computes now
    return {name: tensor for name, tensor in state.items() if not name.endswith(".rotary_emb.inv_freq")}


def _unused(state: Mapping[str, torch.Tensor], shape: VilaUShape) -> dict[str, torch.Tensor]:
    """Return the tensors of the vision tower that do not run.

    Raises:
        ValueError: Codebooks that the config calls one are not equal.
    """
    last = getattr(shape.tokenizer.vit, LAYERS)
    vision = rf"vision_model\.(post_layernorm|head|encoder\.layers\.{last})\..*|text_model\..*|.*position_ids"
    siglip = rf"siglip_model\.({vision})|(siglip_model\.)?logit_(scale|bias)"
    averages = r"quantizer\.codebooks\.\d+\.(cluster_size|embed)_ema"
    repeated = r"quantizer\.codebooks\.[1-9]\d*\.weight" if shape.tokenizer.shared else r"(?!)"
    found = {
        name: t for name, t in state.items() if re.fullmatch(rf"rqvaesiglip\.({siglip}|{averages}|{repeated})", name)
    }
    first = state.get("rqvaesiglip.quantizer.codebooks.0.weight")
    for name, tensor in found.items():
        if name.endswith(".weight") and ".codebooks." in name and first is not None and not torch.equal(tensor, first):
            raise ValueError(f"the weights {name!r} differ from the first codebook, and shared_codebook is on")
    return found


def published_name(name: str) -> str:
    """Return the published name of a tensor."""
    return re.sub(r"(\.up\.\d+\.block\.\d+)\.shortcut\.", r"\1.nin_shortcut.", name)


def _tokenizer(folder: Path, embedded: int) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").is_file() and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError("its tokenizer.model needs sentencepiece; pip install sentencepiece")
    tokenizer = read_tokenizer(folder, MARKS, embedded)
    missing = next((name for name in ("bos_token", "eos_token") if getattr(tokenizer, name) is None), None)
    if missing:
        raise ValueError(f"its tokenizer has no {missing}")
    return tokenizer


def _cfg(path: Path) -> float:
    """Return the guidance scale in a saved folder; the authors' if it has none."""
    if not path.is_file():
        return USUAL_CFG
    with reading(path):
        return SamplingRecipe(cfg=float(json.loads(path.read_text(encoding="utf-8"))["cfg"])).cfg


def _small_files(folder: Path) -> dict[str, bytes]:
    """Return the configs and the tokenizer's files by their paths in the folder."""
    paths = (path for path in folder.rglob("*") if path.suffix in SMALL_SUFFIXES and path.is_file())
    # what is written is one file, so that an index of several would be wrong
    kept = (path for path in paths if not path.name.endswith(".safetensors.index.json"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(kept)}
