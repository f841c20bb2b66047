"""Attach, describe, merge and save peft's LoRA adapters, for every model family."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor


def is_adapted(module: nn.Module) -> bool:
    """Return whether any submodule has a LoRA adapter."""
    return any(".lora_" in name for name, _ in module.named_parameters())


def llama_targets(trunk: str) -> str:
    """Return a regular expression for the linear layers of a Llama's layers.

    Args:
        trunk: Dotted name of the Llama in the network that is adapted.
    """
    return rf"{re.escape(trunk)}\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def attach_lora(net: Any, base: str, target: str, rank: int, alpha: int, dropout: float) -> None:
    """Attach a LoRA adapter to a transformers model.

    Args:
        net: The model; changed in place.
        base: Folder or hub id of the base weights.
        target: Regular expression for the names of the adapted modules.
        rank: Rank of the adapter.
        alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        dropout: Dropout inside the adapter, in [0, 1).

    Raises:
        ValueError: The rank is below 1, or the dropout out of range.
    """
    from peft import LoraConfig

    if rank < 1:
        raise ValueError(f"lora_rank must be >= 0, got {rank}; 0 trains the trunk in full")
    adapter = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target)
    net.add_adapter(adapter)
    adapter.base_model_name_or_path = base
    for name, parameter in net.named_parameters():
        if ".lora_" in name:  # in bfloat16, small optimizer steps would round to zero
            parameter.data = parameter.data.float()


def merged(net: Any, part: str = "") -> Any:
    """Return a network with its adapter merged; a network with an adapter is copied, because it may be in training.

    Args:
        net: The network.
        part: Name of the module with the adapter; empty for the network itself.
    """
    net = copy.deepcopy(net) if is_adapted(net) else net
    merge_lora(net.get_submodule(part))
    return net


def merge_lora(net: Any) -> None:
    """Merge a LoRA adapter, if there is one, into the base weights in place, and remove it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(net.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            net.set_submodule(name, module.get_base_layer())
    net._hf_peft_config_loaded = False


def check_savable(model: nn.Module, adapter_only: bool) -> None:
    """Check that a model can be saved.

    Raises:
        ValueError: The weights are sharded, or ``adapter_only`` without an adapter.
    """
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise ValueError("the weights are sharded; start one process from the run's checkpoint and save there")
    if adapter_only and not is_adapted(model):
        raise ValueError("adapter_only: the model has no LoRA adapter; set lora_rank, or save it whole")


def save_adapter(net: Any, folder: Path) -> None:
    """Write an adapter in peft's format, with the modules that train in full next to it.

    Args:
        net: The transformers model with the adapter.
        folder: Folder to write.
    """
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    # by default peft compares vocabularies with the base's config.json, which not every family's language model wrote,
    # and then adds the embeddings
    adapter = get_peft_model_state_dict(net, save_embedding_layers=False)
    full_parameters = _trained_in_full(net)
    weights = {
        f"base_model.model.{name}": p.detach().cpu().contiguous() for name, p in (adapter | full_parameters).items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    net.peft_config["default"].save_pretrained(folder)
    if full_parameters:
        config = folder / "adapter_config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) | {"modules_to_save": _modules(full_parameters)}
        config.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


def describe_adapter(net: Any, adapter_only: bool) -> str:
    """Describe an adapter, and the modules that trained in full next to it, for the model card."""
    lora, state = net.peft_config["default"], "alone" if adapter_only else "merged"
    modules = [module.removeprefix("model.") for module in _modules(_trained_in_full(net))]
    in_full = f"; and {', '.join(modules)} in full" if modules else ""
    return f"a LoRA adapter of its language model, rank {lora.r}, alpha {lora.lora_alpha}, {state}{in_full}"


def adapter_scales(model: nn.Module) -> dict[str, float]:
    """Return the factor alpha / rank of each adapted layer, by the layer's name; empty without an adapter."""
    if not is_adapted(model):
        return {}
    from peft.tuners.lora import LoraLayer

    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
    return {name: float(layer.scaling["default"]) for name, layer in layers}


def _trained_in_full(net: Any) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad and ".lora_" not in name}


def _modules(names: Iterable[str]) -> list[str]:
    """Return the modules of a transformers model, two levels deep, that hold the named parameters."""
    return sorted({".".join(name.split(".")[:2]) for name in names})
