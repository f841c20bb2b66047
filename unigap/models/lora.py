"""LoRA adapters by peft, the same for every family: put on, described, merged."""

from __future__ import annotations

import copy
from typing import Any

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


def what_was_adapted(net: Any, adapter_only: bool) -> str:
    """What a model card says of an adapter."""
    lora, state = net.peft_config["default"], "alone" if adapter_only else "merged"
    return f"a LoRA adapter of its language model, rank {lora.r}, alpha {lora.lora_alpha}, {state}"
