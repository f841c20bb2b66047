"""Load pretrained transformers checkpoints: safetensors only, no remote code, one line for each fault."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unigap.console import tasks
from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_transformers
from unigap.models.files.bounds import check_chat_template, check_counts, check_size
from unigap.models.files.config import check_family, model_type, read_config
from unigap.models.files.load_options import PRECISIONS, check_load_options
from unigap.models.files.location import SHIPPED, resolve
from unigap.models.files.placement import Placement
from unigap.models.files.weights import check_finite_weights, stored_numbers

IMAGE_READER = ("an image-text-to-text model", "choose one that answers questions")
"""Its name in messages, and what to do without a chat template."""


def load_family(
    network: Any, name: str, no_template: str, checkpoint: str, dtype: str, attn_implementation: str, device: str
) -> tuple[Any, Any]:
    """Load a network of one transformers class in eval mode, and its processor.

    Args:
        network: The transformers class.
        name: Name of the family, for messages.
        no_template: What to do if the checkpoint has no chat template, for the message.
        checkpoint: A shipped model by its name, a folder, or a hub id.
        dtype: Precision of the weights, ``float32`` or ``bfloat16``.
        attn_implementation: ``sdpa`` or ``eager``.
        device: Device of the weights.

    Raises:
        ValueError: The folder is not a sound checkpoint of this family, or an option cannot be honoured.
    """
    check_load_options(dtype, attn_implementation, device)
    check_family(checkpoint, model_type(checkpoint), [network.config_class.model_type])
    options = {"attn_implementation": attn_implementation}
    with tasks.task("loading", f"loading {checkpoint}"):
        net, processor, unused = _load(network, network, name, no_template, checkpoint, dtype, options)
        net = net.to(device)
    if unused:
        raise ValueError(
            f"checkpoint {checkpoint!r}: {len(unused)} weights belong to no part of {name}, first {unused[0]!r}; merge "
            "an adapter into the weights it is for, or leave them out of the file"
        )
    return net, processor


def image_reader_from_folder(checkpoint: str, placement: Placement) -> tuple[Any, Any]:
    """Load any image-text-to-text network of transformers in eval mode, and its processor.

    Args:
        checkpoint: A folder or a hub id.
        placement: Precision and devices of the weights.

    Raises:
        ValueError: The folder is not a sound checkpoint of such a network; names the folder and the fault.
    """
    from transformers import AutoModelForImageTextToText

    network = AutoModelForImageTextToText
    with tasks.task("loading", f"loading the judge {checkpoint}"):
        precision, options = placement.precision, placement.options()
        net, processor, unused = _load(network, network.from_config, *IMAGE_READER, checkpoint, precision, options)
    if unused:
        print(
            f"warning: checkpoint {checkpoint!r}: {len(unused)} weights are not used, first {unused[0]!r}; merge them "
            "if they are an adapter",
            file=sys.stderr,
        )
    return net, processor


@dataclass(frozen=True)
class Network:
    """The transformers classes that load a checkpoint without a chat template, such as a detector's.

    Attributes:
        name: What it is, for messages.
        cls: The class whose ``from_pretrained`` loads the weights.
        build: Builds the network from its config, to count its weights.
        processor: The class whose ``from_pretrained`` loads the processor.
    """

    name: str
    cls: Any
    build: Callable[[Any], Any]
    processor: Any


def network_from_folder(network: Network, checkpoint: str) -> tuple[Any, Any]:
    """Load a network in eval mode on the CPU in float32, and its processor.

    Args:
        network: The classes.
        checkpoint: A folder or a hub id.

    Raises:
        ValueError: The folder is not a sound checkpoint of such a network; names the folder and the fault.
    """
    processor = check_network(network, checkpoint)
    with tasks.task("loading", f"loading {checkpoint}"):
        # older checkpoints store numbers that transformers computes now, such as position ids
        net, _unused = _load_weights(network.cls, network.name, checkpoint, "float32", {})
    return net.requires_grad_(False), processor


def check_network(network: Network, checkpoint: str) -> Any:
    """Check all of a checkpoint but its weights, which stay on disk; return its processor.

    Raises:
        ValueError: As in `network_from_folder`, as far as the config and the processor show it.
    """
    _check_config(checkpoint, network.name, network.build)
    with _loading(checkpoint, network.name):
        return network.processor.from_pretrained(resolve(checkpoint), trust_remote_code=False)


def clip_from_folder(checkpoint: str) -> tuple[Any, Any]:
    """Load a CLIP network of transformers in eval mode on the CPU in float32, and its processor.

    Args:
        checkpoint: A folder or a hub id.

    Raises:
        ValueError: The folder is not a sound checkpoint of CLIP; names the folder and the fault.
    """
    from transformers import CLIPModel, CLIPProcessor

    check_family(checkpoint, model_type(checkpoint), ["clip"])
    return network_from_folder(Network("a CLIP model", CLIPModel, CLIPModel, CLIPProcessor), checkpoint)


def dino_from_folder(checkpoint: str) -> Any:
    """Load a DINOv2 network of transformers in eval mode on the CPU in float32.

    Args:
        checkpoint: A folder or a hub id.

    Raises:
        ValueError: The folder is not a sound checkpoint of DINOv2; names the folder and the fault.
    """
    from transformers import Dinov2Model

    name = "a DINOv2 model"
    check_family(checkpoint, model_type(checkpoint), ["dinov2"])
    _check_config(checkpoint, name, Dinov2Model)
    with tasks.task("loading", f"loading the features {checkpoint}"):
        net, _unused = _load_weights(Dinov2Model, name, checkpoint, "float32", {})
    return net.requires_grad_(False)


def check_image_reader(checkpoint: str) -> Any:
    """Check all of an image-text-to-text checkpoint but its weights, which stay on disk; return its processor.

    Args:
        checkpoint: A folder or a hub id.

    Raises:
        ValueError: As in `image_reader_from_folder`, as far as the config and the processor show it.
    """
    from transformers import AutoModelForImageTextToText

    with tasks.task("loading", f"checking the judge {checkpoint}"):
        return _load_processor(checkpoint, *IMAGE_READER, AutoModelForImageTextToText.from_config)


def _load(
    network: Any,
    build: Callable[[Any], Any],
    name: str,
    no_template: str,
    checkpoint: str,
    dtype: str,
    options: Mapping[str, Any],
) -> tuple[Any, Any, list[str]]:
    """Return a network in eval mode, its processor, and the names of the weights in the file that it does not use."""
    processor = _load_processor(checkpoint, name, no_template, build)
    net, unused = _load_weights(network, name, checkpoint, dtype, options)
    return net, processor, unused


def _load_weights(
    network: Any, name: str, checkpoint: str, dtype: str, options: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Return a network in eval mode with finite weights, and the names of the weights that it does not use."""
    net: Any
    report: dict[str, Any]
    with _loading(checkpoint, name):
        net, report = network.from_pretrained(
            resolve(checkpoint),
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
    check_finite_weights(checkpoint, dict(net.named_parameters()))
    return net.eval(), sorted(report["unexpected_keys"])


def _load_processor(checkpoint: str, name: str, no_template: str, build: Callable[[Any], Any]) -> Any:
    """Check the config and return the processor, whose chat template works."""
    from transformers import AutoProcessor

    _check_config(checkpoint, name, build)
    with _loading(checkpoint, name):
        processor = AutoProcessor.from_pretrained(resolve(checkpoint), trust_remote_code=False)
    _check_template(checkpoint, name, no_template, processor)
    with _loading(checkpoint, name):
        # render once now: a broken chat template would only fail at the first prompt
        processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "?"}]}])
    return processor


def _check_config(checkpoint: str, name: str, build: Callable[[Any], Any]) -> None:
    """Check that ``config.json`` describes a network about as large as the stored weights."""
    from transformers import AutoConfig

    folder, raw = resolve(checkpoint), read_config(checkpoint)
    check_counts(checkpoint, raw)
    if not Path(folder).is_dir() or "quantization_config" in raw:
        return  # weights of a hub id are not downloaded yet, and quantised ones are packed
    with _loading(checkpoint, name):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        stored = stored_numbers(Path(folder))
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            described = sum(p.numel() for p in build(config).parameters()) if stored else 0
    check_size(checkpoint, described, stored)


@contextmanager
def _loading(checkpoint: str, name: str) -> Iterator[None]:
    try:
        with quiet_transformers():
            yield
    except Exception as error:  # a damaged folder raises exceptions without a common class
        raise ValueError(f"checkpoint {checkpoint!r} does not load as {name}: {_fault(error)}") from error


def _check_template(checkpoint: str, name: str, no_template: str, processor: Any) -> None:
    """Check that there is a processor with a chat template that terminates."""
    from transformers import ProcessorMixin

    if not isinstance(processor, ProcessorMixin):
        raise ValueError(f"checkpoint {checkpoint!r} does not load as {name}: it has no processor; download it anew")
    template = processor.chat_template
    if not template:
        raise ValueError(f"checkpoint {checkpoint!r} has no chat template; {no_template}")
    if checkpoint not in SHIPPED:
        for text in template.values() if isinstance(template, dict) else [template]:
            check_chat_template(checkpoint, text, processor.tokenizer.special_tokens_map)


def _fault(error: Exception) -> str:
    """Say in one line why a checkpoint does not load, and what to do."""
    reason = shortened(str(error)) or type(error).__name__
    if not isinstance(error, ImportError):
        return f"{reason}; download it anew"
    if "torchvision" in reason.lower():
        return "its processor needs torchvision; pip install 'unigap[vqa]'"
    return f"{reason}; install it"
