"""The inputs of a layer's forward pass, kept until the gradient at its output arrives.

Shape suffixes: n samples; T positions; A inputs; B outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from theory.contract import parameter_slots
from theory.layers import DenseUse, EmbeddingUse, LinearUse, Use

ADVICE = 'use method="func" or "loop", which make no assumption about layers'


@dataclass(frozen=True)
class Capture:
    """One forward pass of a layer that owns selected parameters.

    Attributes:
        path: Name of the layer in the model.
        module: The layer.
        owned: Names of the layer's selected parameters, by attribute.
        args: Positional arguments of the call, detached.
        kwargs: Keyword arguments of the call, detached.
        n: Number of samples in the batch.
        values: All parameters of the layer during the call, by slot in the layer.
        versions: Version counter of each input when the layer returned; a change in place raises it.
    """

    path: str
    module: nn.Module
    owned: Mapping[str, str]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    n: int
    values: Mapping[str, Tensor]
    versions: tuple[int, ...]

    @classmethod
    def of(
        cls,
        path: str,
        module: nn.Module,
        owned: Mapping[str, str],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        n: int,
    ) -> Capture:
        """Capture a forward pass at the moment it returns."""
        args = tuple(arg.detach() if isinstance(arg, Tensor) else arg for arg in args)
        kwargs = {key: arg.detach() if isinstance(arg, Tensor) else arg for key, arg in kwargs.items()}
        inside = dict(module.named_parameters(remove_duplicate=False))
        values = {slot: inside[slot] for slot in parameter_slots(module)}
        versions = tuple(tensor._version for tensor in _tensors(args, kwargs))
        return cls(path, module, owned, args, kwargs, n, values, versions)

    def uses(self, grad: Tensor) -> dict[str, Use]:
        """Return how the call used each selected parameter, by parameter name.

        Args:
            grad: Gradient at the layer's output, in the output's shape.

        Returns:
            One use per parameter.

        Raises:
            ValueError: If an input was changed in place since the call, or samples have different numbers of rows.
        """
        if tuple(tensor._version for tensor in self._inputs()) != self.versions:
            raise ValueError(
                f"the input of layer {self.path} was changed in place after the layer read it, which would make its "
                f"gradients wrong; write x = x + y for x += y, or {ADVICE}"
            )
        module, forward = self.module, type(self.module).forward
        if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
            return self._linear(grad)
        if isinstance(module, nn.Embedding) and forward is nn.Embedding.forward:
            return self._embedding(module, grad)
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and forward in (nn.LayerNorm.forward, nn.RMSNorm.forward):
            return self._norm(module, grad)
        return self._any_layer(grad)

    def _inputs(self) -> list[Tensor]:
        return _tensors(self.args, self.kwargs)

    def _linear(self, grad: Tensor) -> dict[str, Use]:
        (inputs,) = self._inputs()
        a_nTA, b_nTB = self._by_sample(inputs, inputs.shape[-1]), self._by_sample(grad, grad.shape[-1])
        return {
            name: LinearUse(a_nTA, b_nTB) if attr == "weight" else DenseUse(b_nTB.sum(1).unsqueeze(-1))
            for attr, name in self.owned.items()
        }

    def _embedding(self, module: nn.Embedding, grad: Tensor) -> dict[str, Use]:
        if module.scale_grad_by_freq or module.max_norm is not None:
            raise ValueError(
                f"embedding {self.path} scales gradients by frequency or renormalises its rows; switch that off"
            )
        (ids,) = self._inputs()
        ids_nT, b_nTB = self._by_sample(ids, None), self._by_sample(grad, grad.shape[-1])
        if module.padding_idx is not None:
            b_nTB = b_nTB * (ids_nT != module.padding_idx).unsqueeze(-1)
        return {name: EmbeddingUse(ids_nT, b_nTB) for name in self.owned.values()}

    def _norm(self, module: nn.LayerNorm | nn.RMSNorm, grad: Tensor) -> dict[str, Use]:
        (inputs,) = self._inputs()
        shape = list(module.normalized_shape)
        if isinstance(module, nn.LayerNorm):
            unscaled = F.layer_norm(inputs, shape, eps=module.eps)
        else:
            unscaled = F.rms_norm(inputs, shape, eps=module.eps)
        b_nTB, x_nTB = (self._by_sample(t.flatten(t.ndim - len(shape)), math.prod(shape)) for t in (grad, unscaled))
        return {
            name: DenseUse((b_nTB * x_nTB if attr == "weight" else b_nTB).sum(1).reshape(self.n, shape[0], -1))
            for attr, name in self.owned.items()
        }

    def _by_sample(self, tensor: Tensor, width: int | None) -> Tensor:
        """Reshape (n, ...), (1, ...) or (n * k, ...), whose rows are grouped by sample, to (n, T, width)."""
        if tensor.shape[0] == 1 and self.n > 1:
            tensor = tensor.expand(self.n, *tensor.shape[1:])
        self._check_rows(tensor)
        last = () if width is None else (width,)
        # -1 would be ambiguous if the layer saw no row, as an expert without tokens
        positions = tensor.shape[0] // self.n * math.prod(tensor.shape[1 : tensor.ndim - len(last)])
        return tensor.reshape(self.n, positions, *last)

    def _check_rows(self, tensor: Tensor) -> None:
        # only the self-check can find out whether the rows of one sample are adjacent
        if tensor.shape[0] % self.n:
            raise ValueError(self._not_samples(tensor))

    def _not_samples(self, tensor: Tensor) -> str:
        return (
            f"layer {self.path} sees a tensor of shape {tuple(tensor.shape)} for {self.n} samples; its first axis "
            f"must hold equally many rows of each sample, side by side: expand shared tensors to the batch, or {ADVICE}"
        )

    def _any_layer(self, grad: Tensor) -> dict[str, Use]:
        """Differentiate any other layer, such as a small norm of its own class, by running it again under vmap."""
        rows = grad.shape[0]
        for tensor in (*self._inputs(), grad):
            if tensor.ndim and tensor.shape[0] not in (rows, 1):
                raise ValueError(self._not_samples(tensor))
        self._check_rows(grad)
        own = {attr: self.values[attr] for attr in self.owned}
        batched = [i for i, arg in enumerate(self.args) if _has_rows(arg, rows)]
        named = [key for key, arg in self.kwargs.items() if _has_rows(arg, rows)]

        def pull_back(positional: list[Tensor], keyed: list[Tensor], grad_rows: Tensor) -> dict[str, Tensor]:
            args, kwargs = list(self.args), dict(self.kwargs)
            for i, tensor in zip(batched, positional, strict=True):
                args[i] = tensor
            for key, tensor in zip(named, keyed, strict=True):
                kwargs[key] = tensor

            def run(replaced: dict[str, Tensor]) -> Tensor:
                out: Tensor = functional_call(
                    self.module, {**self.values, **replaced}, tuple(args), kwargs, tie_weights=False
                )
                return out

            grads: dict[str, Tensor] = vjp(run, own)[1](grad_rows)[0]
            return grads

        positional = [self._split(self.args[i]) for i in batched]
        keyed = [self._split(self.kwargs[key]) for key in named]
        with torch.enable_grad():
            grads = vmap(pull_back)(positional, keyed, self._split(grad))
        return {
            self.owned[attr]: DenseUse(g.detach().reshape(self.n, own[attr].shape[0] if own[attr].ndim else 1, -1))
            for attr, g in grads.items()
        }

    def _split(self, tensor: Tensor) -> Tensor:
        """Reshape (n * k, ...) to (n, k, ...): the rows of each sample."""
        return tensor.reshape(self.n, tensor.shape[0] // self.n, *tensor.shape[1:])


def _has_rows(arg: Any, rows: int) -> bool:
    return isinstance(arg, Tensor) and arg.ndim > 0 and arg.shape[0] == rows


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
