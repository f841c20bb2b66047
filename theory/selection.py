"""Selection of the parameters of a kernel: by pattern, by submodule, or LoRA only."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor, nn


@dataclass(frozen=True)
class Selection:
    """Parameters selected by shell patterns such as ``"*.q_proj.weight"``.

    A tied parameter is matched under all its names: it is selected if one of them is included and none is excluded.

    Attributes:
        include: A parameter is selected if one of these matches its full name, whether it is trainable or frozen.
        exclude: A parameter that one of these matches is not selected.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.include, str) or isinstance(self.exclude, str):
            raise ValueError('include and exclude are tuples of patterns; write ("*.weight",), not "*.weight"')


Select: TypeAlias = Selection | str | Sequence[str] | None
"""A selection, one include pattern, several of them, or None for every parameter that requires a gradient."""

LORA = Selection(include=("*lora_*",))
"""Adapter weights under PEFT's names. At initialisation ``lora_B`` is zero, and so is the gradient of ``lora_A``: a
kernel over the adapter then covers ``lora_B`` only."""


def trunk_only(model: nn.Module, trunk: nn.Module) -> Selection:
    """Select the parameters of one submodule, e.g. the shared language model.

    Args:
        model: The whole model.
        trunk: One of its submodules.

    Returns:
        A selection of exactly the submodule's parameters.

    Raises:
        ValueError: If ``trunk`` is not a submodule of ``model``.
    """
    for name, module in model.named_modules():
        if module is trunk:
            return Selection(include=(f"{name}.*",)) if name else Selection()
    raise ValueError(f"the {type(trunk).__name__} given as trunk is no submodule of the model; pass model.<its name>")


def select_parameters(model: nn.Module, select: Select = None) -> dict[str, Tensor]:
    """Resolve a selection.

    Args:
        model: The model.
        select: A selection, a pattern, patterns, or None for all parameters that require a gradient.

    Returns:
        The parameters by name; a tied one once, under its first name.

    Raises:
        ValueError: If nothing is selected; the message offers names close to the pattern.
    """
    aliases: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(p), []).append(name)
    params = dict(model.named_parameters())
    if select is None:
        chosen: dict[str, Tensor] = {name: p for name, p in params.items() if p.requires_grad}
        if not chosen:
            raise ValueError("no parameter requires a gradient; unfreeze some, or name some with select=")
        return chosen
    rule = _as_selection(select)
    chosen = {name: p for name, p in params.items() if _matches(rule, aliases[id(p)])}
    if not chosen:
        raise ValueError(_nothing_selected(rule, list(params)))
    return chosen


def _as_selection(select: Selection | str | Sequence[str]) -> Selection:
    if isinstance(select, Selection):
        return select
    return Selection(include=(select,) if isinstance(select, str) else tuple(select))


def _matches(rule: Selection, names: list[str]) -> bool:
    included = any(fnmatchcase(name, pattern) for name in names for pattern in rule.include)
    return included and not any(fnmatchcase(name, pattern) for name in names for pattern in rule.exclude)


def _nothing_selected(rule: Selection, names: list[str]) -> str:
    wanted = rule.include[0].replace("*", "") if rule.include else ""
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.0)
    return (
        f"select: no parameter matches include={rule.include} with exclude={rule.exclude}; "
        f"patterns must match whole names, such as {', '.join(near) or 'none: the model has no parameters'}"
    )
