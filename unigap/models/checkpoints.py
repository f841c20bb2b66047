"""Loading pretrained folders: safetensors only, no remote code, no URLs, and one clear line when it is not one."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from unigap.quiet import quiet_transformers

SHIPPED = {"shapes": "shapes/checkpoint"}


def resolve(checkpoint: str) -> str:
    """The folder of a shipped checkpoint, a local folder, or a hub id as it is.

    Raises:
        ValueError: For URLs, and for paths that do not exist.
    """
    if checkpoint in SHIPPED:
        return str(files("unigap") / SHIPPED[checkpoint])
    if "://" in checkpoint:
        raise ValueError(f"checkpoint {checkpoint!r} is a URL; download it and give the folder")
    path = Path(checkpoint)
    if path.is_file():
        raise ValueError(f"checkpoint {checkpoint!r} is a file; give the folder with its config.json")
    if not path.is_dir() and (checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "~"))):
        raise ValueError(f"checkpoint {checkpoint!r}: no such folder; give a folder, a hub id, or 'shapes'")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"checkpoint {checkpoint!r}: the folder has no config.json; give a transformers checkpoint")
    return checkpoint


def janus_from_folder(checkpoint: str, dtype: str, attn_implementation: str) -> tuple[Any, Any]:
    """A Janus network in eval mode and its processor.

    Raises:
        ValueError: When the folder is no sound Janus checkpoint; names the folder and what is wrong.
    """
    from transformers import AutoProcessor, JanusForConditionalGeneration

    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in precisions:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of: {', '.join(precisions)}")
    folder = resolve(checkpoint)
    kind = _model_type(folder)
    if kind not in ("janus", None):
        raise ValueError(f"checkpoint {checkpoint!r} is a {kind!r} model, not 'janus'; use the class of its family")
    net: Any
    report: dict[str, Any]
    try:
        with quiet_transformers():
            load: Any = JanusForConditionalGeneration.from_pretrained
            net, report = load(
                folder,
                dtype=precisions[dtype],
                attn_implementation=attn_implementation,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            # a chat template that is missing or broken would only show with the first prompt
            processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "?"}]}])
    except Exception as error:  # what a damaged folder makes transformers stumble over has no common class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"checkpoint {checkpoint!r} does not load as Janus: {reason}; download it anew") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"checkpoint {checkpoint!r}: {len(missing)} weights are missing, first {missing[0]!r}; download it anew"
        )
    broken = next((name for name, p in net.named_parameters() if not torch.isfinite(p.sum(dtype=torch.float64))), None)
    if broken:
        raise ValueError(
            f"checkpoint {checkpoint!r}: the weights {broken!r} are not finite; take an earlier checkpoint"
        )
    return net.eval(), processor


def _model_type(folder: str) -> str | None:
    """What ``config.json`` says the model is; ``None`` for a hub id, which transformers checks itself."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("model_type") or "unknown"
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"checkpoint {folder!r}: config.json is not a JSON object ({error}); restore it") from error


def open_lightning(path: str, option: str) -> dict[str, Any]:
    """What a Lightning checkpoint file holds; no code in it is run, and tensors stay on disk until they are used.

    Args:
        path: The file.
        option: The option that names it, for the message.

    Raises:
        ValueError: When it is a URL, is missing, or holds more or less than a Lightning checkpoint's plain values.
    """
    if "://" in path:
        raise ValueError(f"{option} {path!r} is a URL; download it and give the file")
    if not Path(path).is_file():
        raise ValueError(f"{option} {path!r}: no such file; give the .ckpt file of an earlier run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what damaged bytes make torch stumble over has no common class
        raise ValueError(
            f"{option} {path!r}: damaged, or more than tensors and plain values; nothing in it was run, take another"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "pytorch-lightning_version"} <= content.keys():
        raise ValueError(f"{option} {path!r} is no Lightning checkpoint; give the .ckpt file of an earlier run")
    return content
