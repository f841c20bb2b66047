"""The methods that compute per-sample gradients, behind one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from theory.contract import Source
from theory.functional import stream_func
from theory.gradients import Product, Visit
from theory.hooks import stream_hooks
from theory.looped import stream_loop

Method: TypeAlias = Literal["auto", "hooks", "ghost", "func", "loop"]
"""How per-sample gradients are computed. All methods agree up to rounding; they differ in cost and in requirements.

With n samples of T positions, a linear layer from A inputs to B outputs, and P selected parameters:

- ``"auto"`` (use this first): hooks on the layers, one batched forward and backward pass, and for each layer the
  cheaper of the two products below. Memory: activations, and the per-sample gradients of part of a layer at a time.
- ``"hooks"``: the same passes; forms each layer's per-sample gradients, with n T A B + n^2 A B multiplications.
  Better when samples are long or layers narrow.
- ``"ghost"``: the same passes; multiplies inputs and output gradients instead, with n^2 T^2 (A + B) multiplications.
  Better when samples are short or layers very wide: n T^2 (A + B) < (n + T) A B.
- ``"func"``: ``torch.func``'s vmap(grad). It makes no assumption about layers: use it when a weight is used outside its
  layer's call. The model must run under vmap: eager attention, no branches on data. Memory: n P numbers.
- ``"loop"``: one backward pass per sample. It makes no assumption at all: use it for mixtures of experts and packed
  sequences, where a layer mixes rows of several samples. Time: n passes of one sample. Memory: n P numbers.

The first three need every layer that owns a selected parameter to see equally many rows of each sample, side by side.
With ``check``, every call is compared with plain autograd, which costs one further forward and backward pass and a copy
of the selected parameters. ``docs/theory.md`` lists measured times."""

_PRODUCT: dict[Method, Product] = {
    "auto": "auto", "hooks": "dense", "ghost": "ghost", "func": "dense", "loop": "dense"
}  # fmt: skip
_STREAMS = {"func": stream_func, "loop": stream_loop}


def product_of(method: Method) -> Product:
    """Return how a method forms inner products.

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
    """Pass the per-sample gradients of each parameter to ``visit``.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches.
        params: The selected parameters, by name.
        visit: Called with (name, gradients of all sources).
        dtype: Dtype of the gradients passed to ``visit``.
        method: How the gradients are computed.
        at: Parameter values that replace the model's own, by name; None for none.

    Returns:
        The log-likelihoods of each source, detached.
    """
    product_of(method)
    return _STREAMS.get(method, stream_hooks)(model, sources, params, visit, dtype, at)
