"""Read and write Show-o folders, and convert the published checkpoints."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PhiConfig
from transformers.models.phi.modeling_phi import PhiRotaryEmbedding

from unigap.console import tasks
from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_transformers
from unigap.models.files.bounds import check_counts
from unigap.models.files.config import read_config
from unigap.models.files.load_options import DTYPES, check_load_options
from unigap.models.files.location import resolve
from unigap.models.files.tokens import check_tokens
from unigap.models.files.weights import check_finite_weights, fill
from unigap.models.showo.chat_template import IMAGE_END, IMAGE_START, QUESTION, TEXT_TO_IMAGE, UNDERSTANDING, with_marks
from unigap.models.showo.magvit import MagvitConfig, signs
from unigap.models.showo.network import FUSED_GELU, ShowONetwork, ShowOShape

MODEL_TYPE = "show-o"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
RENAMED = (
    (r"^showo\.", "llm."),
    (r"^(encoder|decoder)\.", r"magvit.\1."),
    (r"\.(?:down|up)\.(\d+)\.", r".levels.\1."),
    (r"\.block\.(\d+)\.", r".blocks.\1."),
    (r"\.(?:downsample|upsample)\.", ".resample."),
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.nin_shortcut\.", ".shortcut."),
)
"""Substitutions from the published names of tensors to ours, applied in this order."""


def official_shape(grid: int = 16) -> ShowOShape:
    """Return the configuration of the published Show-o: Phi-1.5, 8,192 image codes, 16 x 16 pixels per token.

    Args:
        grid: Tokens per side of an image: 16 for ``showlab/show-o``, 32 for ``showlab/show-o-512x512``.
    """
    text_tokens, special_tokens = 50_295, 10
    magvit = MagvitConfig()
    # transformers' defaults are Phi-1.5; Show-o also normalises queries and keys
    llm = PhiConfig(
        vocab_size=text_tokens + special_tokens + 2**magvit.bits + 1,
        hidden_act=FUSED_GELU,
        qk_layernorm=True,
        pad_token_id=text_tokens,
        bos_token_id=50_256,
        eos_token_id=50_256,
    )
    return ShowOShape(llm, magvit, grid, QUESTION)


def official_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of ``showlab/show-o``, of ``showlab/magvitv2``, or of both.

    Written from the public code of Show-o and not yet tested on the published files.

    Args:
        state: Tensors by their published names. The quantiser's tables are checked and omitted, because they follow
            from the number of codes.

    Raises:
        ValueError: The tensors are of the CLIP variant, or the tables number the codes differently.
    """
    clip_tensor = next((name for name in state if name.startswith("mm_projector.")), None)
    if clip_tensor:
        raise ValueError(
            f"{clip_tensor!r} is of the Show-o that sees images through CLIP; take showlab/show-o, which sees codes"
        )
    tables = {name for name in state if name.startswith("quantize.")}
    table = state.get("quantize.embedding")
    if table is not None and not torch.equal(table.float(), signs(torch.arange(len(table)), table.shape[1])):
        raise ValueError("quantize.embedding numbers the codes in another order than Show-o's tokenizer does")
    return {_ours(name): tensor for name, tensor in state.items() if name not in tables}


def _ours(name: str) -> str:
    for pattern, ours in RENAMED:
        name = re.sub(pattern, ours, name)
    return name


def convert_official(show_o: str, magvit: str, phi: str, folder: str | Path, grid: int = 16) -> None:
    """Convert the published checkpoints to one folder that ``ShowO`` loads.

    Args:
        show_o: The safetensors file of ``showlab/show-o``.
        magvit: The safetensors file of ``showlab/magvitv2``.
        phi: Folder with the tokenizer of ``microsoft/phi-1_5``.
        folder: Folder to write.
        grid: Tokens per side of an image.

    Raises:
        ValueError: A file is not a safetensors file, or its tensors are not those of Show-o.
    """
    state: dict[str, torch.Tensor] = {}
    for path in (show_o, magvit):
        if not path.endswith(".safetensors") or not Path(path).is_file():
            raise ValueError(f"{path!r} is not a safetensors file; save the published tensors as one")
        state |= load_file(path)
    net = filled(official_shape(grid), official_names(state))
    write_folder(net, with_marks(AutoTokenizer.from_pretrained(phi)), folder)


def showo_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> tuple[ShowONetwork, Any]:
    """Load a Show-o network in eval mode, and its tokenizer.

    Raises:
        ValueError: The folder is not a sound Show-o in the layout of ``write_folder`` (names the folder and the fault),
            or an option cannot be honoured.
    """
    check_load_options(dtype, attn_implementation, device)
    folder = Path(resolve(checkpoint))
    if not folder.is_dir():
        raise ValueError(
            f"checkpoint {checkpoint!r} is a hub id, and Show-o loads from a folder that unigap wrote; "
            "download it there, or convert the published tensors"
        )
    config = read_config(checkpoint)
    kind = config.get("model_type")
    if kind != MODEL_TYPE:
        raise ValueError(
            f"checkpoint {checkpoint!r} is a {kind!r} model, not {MODEL_TYPE!r}; use the class of its family"
        )
    check_counts(checkpoint, config)
    try:
        with tasks.task("loading", f"loading {checkpoint}"), quiet_transformers():
            shape = _shape(config)
            net = filled(shape, load_file(folder / WEIGHTS), attn_implementation, DTYPES[dtype])
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged folder raises exceptions without a common class
        reason = shortened(str(error)) or type(error).__name__
        raise ValueError(f"checkpoint {checkpoint!r} does not load as Show-o: {reason}; restore it") from error
    check_finite_weights(checkpoint, dict(net.named_parameters()))
    check_tokens(checkpoint, tokenizer, shape.first_code, [IMAGE_START, IMAGE_END, TEXT_TO_IMAGE, UNDERSTANDING])
    return net.to(device).eval(), tokenizer


def write_folder(net: ShowONetwork, tokenizer: Any, folder: str | Path) -> None:
    """Write a network and its tokenizer: config.json, model.safetensors and the tokenizer's files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shape = net.shape
    config = {
        "model_type": MODEL_TYPE,
        "llm": shape.llm.to_diff_dict(),
        "magvit": dataclasses.asdict(shape.magvit),
        "grid": shape.grid,
        "question": shape.question,
        "cfg": shape.cfg,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / WEIGHTS)
    tokenizer.save_pretrained(folder)


def filled(
    shape: ShowOShape,
    state: Mapping[str, torch.Tensor],
    attn_implementation: str = "sdpa",
    dtype: torch.dtype = torch.float32,
) -> ShowONetwork:
    """Build a network with exactly these tensors; ``dtype`` is the precision of its language model.

    Raises:
        ValueError: A tensor is missing, unknown or of the wrong shape.
    """
    with torch.device("meta"):
        net = ShowONetwork(shape, attn_implementation)
    fill(net, {name: t.to(dtype if name.startswith("llm.") else torch.float32) for name, t in state.items()})
    # its tables are not weights and are still on the meta device
    net.llm.model.rotary_emb = PhiRotaryEmbedding(shape.llm)
    return net


def _shape(config: Mapping[str, Any]) -> ShowOShape:
    llm, magvit = PhiConfig(**config["llm"]), MagvitConfig(**config["magvit"])
    return ShowOShape(llm, magvit, config["grid"], config["question"], config.get("cfg", 1.0))
