"""Loading pretrained folders: safetensors only, no remote code, no URLs, and one clear line when it is not one."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_transformers
from unigap.models.files.bounds import check_chat_template, check_counts, check_size, stored_numbers
from unigap.models.files.tokens import check_emu3_tokens, check_janus_tokens

SHIPPED = {
    "shapes": "janus",
    "shapes-emu3": "emu3",
    "shapes-emu3-question-first": "emu3_question_first",
    "shapes-show-o": "show_o",
}
"""Folders of the shipped checkpoints, by the names they are asked for."""
PRECISIONS = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}
"""Names of the precisions weights are loaded in; ``auto`` is that of the checkpoint."""
TEMPLATES = {
    "Janus": "copy chat_template.jinja of deepseek-community/Janus-Pro-1B into a folder of it",
    "Emu3": "as Emu3's for drawing has none; copy chat_template.jinja of BAAI/Emu3-Chat-hf into a folder of it",
}
"""Where a family's chat template is to be had."""
ANOTHER = "choose one that answers questions"
FIRST_LAYOUT = "multi_modality"
"""What Janus-Pro calls itself in the layout of its authors' own code, which transformers does not read."""


def resolve(checkpoint: str) -> str:
    """The folder of a shipped checkpoint, a local folder, or a hub id as it is.

    Raises:
        ValueError: For URLs, and for paths that do not exist.
    """
    if checkpoint in SHIPPED:
        shipped = Path(str(files("unigap") / "worlds/shapes/checkpoints" / SHIPPED[checkpoint]))
        if not shipped.is_dir():
            raise ValueError(
                f"checkpoint {checkpoint!r} is not in this installation, only in the repository; clone it, or give "
                f"its folder {Path(*shipped.parts[-5:])}"
            )
        return str(shipped)
    if "://" in checkpoint:
        raise ValueError(f"checkpoint {checkpoint!r} is a URL; download it and give the folder")
    path = Path(checkpoint)
    if path.is_file():
        raise ValueError(f"checkpoint {checkpoint!r} is a file; give the folder with its config.json")
    if not path.is_dir() and (checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "~"))):
        raise ValueError(
            f"checkpoint {checkpoint!r}: no such folder; give a folder, a hub id, or one of {', '.join(SHIPPED)}"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"checkpoint {checkpoint!r}: the folder has no config.json; give a transformers checkpoint")
    return checkpoint


def check_device(device: str) -> None:
    """Make sure that tensors can lie on a device.

    Raises:
        ValueError: They cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for a GPU
        raise ValueError(f"device {device!r} is not there; give cpu, cuda, or cuda: and a number") from error


def check_attention(implementation: str) -> None:
    """Make sure that attention can be computed as its masks need it.

    Raises:
        ValueError: It cannot: what one row holds side by side would see each other.
    """
    if implementation not in ("sdpa", "eager"):
        raise ValueError(f"attn_implementation must be 'sdpa' or 'eager', got {implementation!r}")


def janus_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> tuple[Any, Any]:
    """A Janus network in eval mode and its processor.

    Raises:
        ValueError: When the folder is no sound Janus checkpoint, which names the folder and what is wrong, or there is
            no such device.
    """
    from transformers import JanusForConditionalGeneration

    family, check = JanusForConditionalGeneration, check_janus_tokens
    return _unified(family, "Janus", check, checkpoint, dtype, attn_implementation, device)


def emu3_from_folder(checkpoint: str, dtype: str, attn_implementation: str, device: str) -> tuple[Any, Any]:
    """An Emu3 network in eval mode and its processor.

    Raises:
        ValueError: When the folder is no sound Emu3 checkpoint, which names the folder and what is wrong, or there is
            no such device.
    """
    from transformers import Emu3ForConditionalGeneration

    family, check = Emu3ForConditionalGeneration, check_emu3_tokens
    return _unified(family, "Emu3", check, checkpoint, dtype, attn_implementation, device)


def _unified(
    family: Any,
    what: str,
    check: Callable[[str, Any, Any], None],
    checkpoint: str,
    dtype: str,
    attn_implementation: str,
    device: str,
) -> tuple[Any, Any]:
    if dtype not in ("float32", "bfloat16"):  # what is trained names its precision
        raise ValueError(f"unknown dtype {dtype!r}; choose one of: float32, bfloat16")
    check_attention(attn_implementation)
    check_device(device)
    check_family(checkpoint, model_type(checkpoint), [family.config_class.model_type])
    net, processor, unused = _load(
        family, family, what, checkpoint, dtype, {"attn_implementation": attn_implementation}
    )
    if unused:
        raise ValueError(
            f"checkpoint {checkpoint!r}: {len(unused)} weights are of no part of {what}, first {unused[0]!r}; merge an "
            "adapter into the weights it is for, or leave them out of the file"
        )
    check(checkpoint, net, processor)
    return net.to(device), processor


def image_reader_from_folder(checkpoint: str, dtype: str) -> tuple[Any, Any]:
    """Any network that reads images and writes text, in eval mode on the CPU, and its processor.

    Raises:
        ValueError: When the folder is no sound checkpoint of one; names the folder and what is wrong.
    """
    from transformers import AutoModelForImageTextToText

    what = "an image-text-to-text model"
    family = AutoModelForImageTextToText
    net, processor, unused = _load(family, family.from_config, what, checkpoint, dtype, {})
    if unused:
        print(
            f"warning: checkpoint {checkpoint!r}: {len(unused)} weights are not used, first {unused[0]!r}; merge them "
            "if they are an adapter",
            file=sys.stderr,
        )
    return net, processor


def _load(
    family: Any, build: Callable[[Any], Any], what: str, checkpoint: str, dtype: str, options: Mapping[str, Any]
) -> tuple[Any, Any, list[str]]:
    """A network in eval mode, its processor, and the names of the weights that it does not use."""
    from transformers import AutoProcessor

    folder = resolve(checkpoint)
    net: Any
    report: dict[str, Any]
    _check_config(checkpoint, what, build)
    with _loading(checkpoint, what):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    _check_template(checkpoint, what, processor)
    with _loading(checkpoint, what):
        # a broken chat template would only show with the first prompt
        processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "?"}]}])
        net, report = family.from_pretrained(
            folder,
            dtype=PRECISIONS[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"checkpoint {checkpoint!r}: {len(missing)} weights are missing, first {missing[0]!r}; download it anew"
        )
    broken = _first_not_finite(dict(net.named_parameters()))
    if broken:
        raise ValueError(
            f"checkpoint {checkpoint!r}: the weights {broken!r} are not finite; take an earlier checkpoint"
        )
    return net.eval(), processor, sorted(report["unexpected_keys"])


def _check_config(checkpoint: str, what: str, build: Callable[[Any], Any]) -> None:
    """Make sure that ``config.json`` describes a network of about the size of the weights beside it."""
    from transformers import AutoConfig

    folder, raw = resolve(checkpoint), read_config(checkpoint)
    check_counts(checkpoint, raw)
    if not Path(folder).is_dir() or "quantization_config" in raw:
        return  # the weights of a hub id are not here yet, and quantised ones are packed
    with _loading(checkpoint, what):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        stored = stored_numbers(Path(folder))
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            asked = sum(p.numel() for p in build(config).parameters()) if stored else 0
    check_size(checkpoint, asked, stored)


@contextmanager
def _loading(checkpoint: str, what: str) -> Iterator[None]:
    try:
        with quiet_transformers():
            yield
    except Exception as error:  # what a damaged folder makes transformers stumble over has no common class
        raise ValueError(f"checkpoint {checkpoint!r} does not load as {what}: {_fault(error)}") from error


def _check_template(checkpoint: str, what: str, processor: Any) -> None:
    """Make sure that there is a processor with a chat template, and that this ends."""
    from transformers import ProcessorMixin

    if not isinstance(processor, ProcessorMixin):
        raise ValueError(f"checkpoint {checkpoint!r} does not load as {what}: it has no processor; download it anew")
    template = processor.chat_template
    if not template:
        raise ValueError(f"checkpoint {checkpoint!r} has no chat template; {TEMPLATES.get(what, ANOTHER)}")
    if checkpoint not in SHIPPED:
        for text in template.values() if isinstance(template, dict) else [template]:
            check_chat_template(checkpoint, text, processor.tokenizer.special_tokens_map)


def _fault(error: Exception) -> str:
    """Why a checkpoint does not load, in one line, and what to do."""
    reason = shortened(str(error)) or type(error).__name__
    if not isinstance(error, ImportError):
        return f"{reason}; download it anew"
    if "torchvision" in reason.lower():
        return "its processor needs torchvision; pip install 'unigap[vqa]'"
    return f"{reason}; install it"


def model_type(checkpoint: str) -> str:
    """What ``config.json`` of a folder, or of a hub id, says the model is; ``unknown`` where it does not say.

    Raises:
        ValueError: It can neither be found nor downloaded, or it is no JSON object.
    """
    return str(read_config(checkpoint).get("model_type") or "unknown")


def read_config(checkpoint: str) -> dict[str, Any]:
    """What ``config.json`` of a folder, or of a hub id, holds.

    Raises:
        ValueError: It can neither be found nor downloaded, or it is no JSON object.
    """
    path = _config_file(checkpoint)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is a list or a single value")
    except (OSError, ValueError, RecursionError) as error:
        reason = f"config.json is not a JSON object ({error})"
        raise ValueError(f"checkpoint {checkpoint!r}: {reason}; restore it") from error
    return config


def _config_file(checkpoint: str) -> Path:
    """Where ``config.json`` lies: in the folder, or in the hub's cache, into which it is downloaded if need be."""
    from transformers.utils.hub import cached_file

    folder = resolve(checkpoint)
    if Path(folder).is_dir():
        return Path(folder) / "config.json"
    try:
        return Path(str(cached_file(folder, "config.json")))
    except OSError as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"checkpoint {checkpoint!r} cannot be had from the hub: {reason}; check its name, or give a folder"
        ) from error


def check_family(checkpoint: str, kind: str, known: Iterable[str]) -> None:
    """Make sure that a checkpoint is of a family that can be loaded.

    Raises:
        ValueError: ``kind``, its model type, is not among the ``known``.
    """
    if kind == FIRST_LAYOUT:
        raise ValueError(
            f"checkpoint {checkpoint!r} is in the layout of Janus's own code; take deepseek-community/Janus-Pro-1B, -7B"
        )
    if kind not in known:
        names = " or ".join(map(repr, known))
        raise ValueError(f"checkpoint {checkpoint!r} is a {kind!r} model, not {names}; use the class of its family")


def open_lightning(path: str, option: str) -> dict[str, Any]:
    """What a Lightning checkpoint file holds; no code in it is run, and tensors stay on disk until they are used.

    Every byte is read once, in blocks, and compared with the checksums in the file.

    Args:
        path: The file.
        option: The option that names it, for the message.

    Raises:
        ValueError: When it is a URL, is missing or damaged, holds more or less than a Lightning checkpoint's plain
            values, or weights that are not finite.
    """
    if "://" in path:
        raise ValueError(f"{option} {path!r} is a URL; download it and give the file")
    if not Path(path).is_file():
        raise ValueError(f"{option} {path!r}: no such file; give the .ckpt file of an earlier run")
    fault = _zip_fault(Path(path))
    if fault:
        raise ValueError(f"{option} {path!r} is damaged: {fault}; nothing in it was run, take another")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what damaged bytes make torch stumble over has no common class
        raise ValueError(
            f"{option} {path!r}: damaged, or more than tensors and plain values; nothing in it was run, take another"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "pytorch-lightning_version"} <= content.keys():
        raise ValueError(f"{option} {path!r} is no Lightning checkpoint; give the .ckpt file of an earlier run")
    broken = _first_not_finite(content["state_dict"])
    if broken:
        raise ValueError(f"{option} {path!r}: the weights {broken!r} are not finite; take an earlier checkpoint")
    return content


def _zip_fault(path: Path) -> str | None:
    """What is wrong with the bytes of a file that torch saved; None if nothing, or if it is no zip file at all."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            # torch compresses nothing; a part that is could unpack to any size
            packed = next((part.filename for part in archive.infolist() if part.compress_type), None)
            broken = packed or archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        return str(error)
    return f"the checksum of its part {broken!r} does not fit" if broken else None


def _first_not_finite(weights: Mapping[str, Any]) -> str | None:
    """Name of the first tensor with a NaN or an infinity; None if there is none."""
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    floats = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    return next((name for name, tensor in floats if not torch.isfinite(tensor.sum(dtype=torch.float64))), None)
