"""The ways to per-sample gradients behind one door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from theory.contract import Source
from theory.functional import stream_func
from theory.gradients import Product, Visit
from theory.hooks import stream_hooks

Method: TypeAlias = Literal["auto", "hooks", "ghost", "func"]
"""``"hooks"`` streams layers and forms their per-sample gradients; ``"ghost"`` streams layers and multiplies factors;
``"auto"`` streams layers and takes the cheaper product for each; ``"func"`` is ``torch.func``'s vmap(grad)."""

_PRODUCT: dict[Method, Product] = {"auto": "auto", "hooks": "dense", "ghost": "ghost", "func": "dense"}


def product_of(method: Method) -> Product:
    """How a method forms inner products.

    Raises:
        ValueError: If there is no such method.
    """
    if method not in _PRODUCT:
        raise ValueError(f"unknown method {method!r}; available: {', '.join(_PRODUCT)}")
    return _PRODUCT[method]


def stream(
    model: nn.Module,
    sources: Sequence[Source],
    params: Mapping[str, Tensor],
    visit: Visit,
    dtype: torch.dtype,
    method: Method,
    at: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Hands the per-sample gradients of each parameter to ``visit``.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches.
        params: The parameters asked for, by name.
        visit: Receives (name, gradients of all sources).
        dtype: The dtype gradients are handed out in.
        method: The way to the gradients.
        at: Parameter values to stand in for the model's own.

    Returns:
        The log-likelihoods of each source, detached.
    """
    product_of(method)
    way = stream_func if method == "func" else stream_hooks
    return way(model, sources, params, visit, dtype, at)
