"""LoRA adapters by peft, the same for every family: put on, described, merged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor


def is_adapted(module: nn.Module) -> bool:
    """Whether a LoRA adapter lies on any part of it."""
    return any(".lora_" in name for name, _ in module.named_parameters())


def put_lora(net: Any, base: str, target: str, rank: int, alpha: int, dropout: float) -> None:
    """Puts an adapter on a transformers model.

    Args:
        net: The model; it is changed in place.
        base: What its weights are called where they came from.
        target: Regular expression for the modules that are adapted.
        rank: Rank of the adapter.
        alpha: Its scale; the update is multiplied by alpha / rank.
        dropout: Dropout inside it, in [0, 1).

    Raises:
        ValueError: When the rank is below 1, or the dropout out of range.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ValueError(f"lora_rank must be >= 0, got {rank}; 0 trains the trunk in full")
    adapter = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target)
    net.add_adapter(adapter)
    adapter.base_model_name_or_path = base
    for name, parameter in net.named_parameters():
        if ".lora_" in name:  # bfloat16, if that is what the base has, would round small steps away
            parameter.data = parameter.data.float()


def merged(net: Any, part: str = "") -> Any:
    """A network without an adapter: one that has one is copied, since it may be in the middle of training.

    Args:
        net: The network.
        part: Name of the module the adapter lies on; empty is the network itself.
    """
    net = copy.deepcopy(net) if is_adapted(net) else net
    merge_lora(net.get_submodule(part))
    return net


def merge_lora(net: Any) -> None:
    """Folds a LoRA adapter, where there is one, into the weights it adapts and removes it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(net.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            net.set_submodule(name, module.get_base_layer())
    net._hf_peft_config_loaded = False


def check_savable(model: nn.Module, adapter_only: bool) -> None:
    """Make sure that a model can be written.

    Raises:
        ValueError: Its weights are sharded, or there is no adapter that could be written alone.
    """
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise ValueError("the weights are sharded; start one process from the run's checkpoint and save there")
    if adapter_only and not is_adapted(model):
        raise ValueError("adapter_only: the model has no LoRA adapter; set lora_rank, or save it whole")


def save_adapter(net: Any, folder: Path) -> None:
    """Writes an adapter as peft loads it, with the parts that train in full beside it.

    Args:
        net: The transformers model with the adapter.
        folder: Where to.
    """
    net.save_pretrained(folder)  # of a net with an adapter, transformers saves that alone
    beside = _trained_in_full(net)
    if not beside:
        return
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    in_full = {f"base_model.model.{name}": p.detach().cpu().contiguous() for name, p in beside.items()}
    save_file(load_file(weights) | in_full, weights, metadata={"format": "pt"})
    settings = json.loads(config.read_text(encoding="utf-8")) | {"modules_to_save": _parts(beside)}
    config.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


def what_was_adapted(net: Any, adapter_only: bool) -> str:
    """What a model card says of an adapter, and of what trained in full beside it."""
    lora, state = net.peft_config["default"], "alone" if adapter_only else "merged"
    parts = [part.removeprefix("model.") for part in _parts(_trained_in_full(net))]
    beside = f"; and {', '.join(parts)} in full" if parts else ""
    return f"a LoRA adapter of its language model, rank {lora.r}, alpha {lora.lora_alpha}, {state}{beside}"


def adapter_scales(model: nn.Module) -> dict[str, float]:
    """What each adapted layer multiplies its update by, by the layer's name; empty without an adapter."""
    if not is_adapted(model):
        return {}
    from peft.tuners.lora import LoraLayer

    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
    return {name: float(layer.scaling["default"]) for name, layer in layers}


def _trained_in_full(net: Any) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad and ".lora_" not in name}


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of a transformers model that some of its parameters are in."""
    return sorted({".".join(name.split(".")[:2]) for name in names})
