"""Per-sample gradients by hooks: one batched forward and backward pass, one layer at a time.

Each layer that owns a selected parameter keeps its input until the gradient at its output arrives. Its per-sample
gradients are then passed on and dropped. The parameters are detached, so the backward pass computes no weight gradients
of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import CheckpointError

from theory.capture import ADVICE, Capture
from theory.conditions import watched_forward
from theory.contract import Source, checked_logps, detached_parameters, logp_at, parameter_slots, sample_count
from theory.gradients import Visit
from theory.layers import LayerGrads, Use

_CHECKPOINTING = "layers run again during the backward pass; turn gradient checkpointing off"


def stream_hooks(
    model: nn.Module,
    sources: Sequence[Source],
    params: Mapping[str, Tensor],
    visit: Visit,
    dtype: torch.dtype,
    at: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Pass the per-sample gradients of each parameter to ``visit`` as soon as they are complete.

    Args:
        model: The model.
        sources: Log-likelihoods and their batches.
        params: The selected parameters, by name.
        visit: Called with (name, gradients of all sources); parameters that no source uses are not visited.
        dtype: Dtype of the gradients passed to ``visit``.
        at: Parameter values that replace the model's own, by name; None for none.

    Returns:
        The log-likelihoods of each source, detached.

    Raises:
        ValueError: If a layer is used in a way that hooks cannot follow; the message names it.
    """
    sizes = [sample_count(batch) for _, batch in sources]
    sources = [(fn, tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, b)) for fn, b in sources]
    tape = _Tape(model, params, sizes, visit, dtype)
    values = detached_parameters(model, at)
    logps: list[Tensor] = []
    with torch.enable_grad(), tape.recording():
        with watched_forward(model):
            for group, source in enumerate(sources):
                tape.group = group
                with tape.explaining_shared_rows():
                    logps.append(checked_logps(logp_at(model, values, source), sizes[group], group))
        tape.group = None
        reached = [logp.sum() for logp in logps if logp.requires_grad]
        if reached and not tape.roots:
            raise ValueError("the logp_fn uses a tensor of its own that requires a gradient; detach it")
        if reached:
            tape.backward(reached)
    tape.finish()
    return [logp.detach() for logp in logps]


@dataclass
class _Pending:
    """Uses of a parameter whose gradients are not complete yet."""

    uses: list[list[Use]]
    awaited: int = 0


class _Tape:
    """Record the uses of the selected parameters and pass them on when their gradients are complete."""

    def __init__(
        self, model: nn.Module, params: Mapping[str, Tensor], sizes: list[int], visit: Visit, dtype: torch.dtype
    ) -> None:
        self.roots: list[Tensor] = []
        self.group: int | None = None
        self._sizes, self._visit, self._dtype = sizes, visit, dtype
        self._params = params
        self._pending: dict[str, _Pending] = {}
        self._recomputing = False
        self._shared: str | None = None
        owned: dict[str, dict[str, str]] = {}
        for slot, name in parameter_slots(model).items():
            path, _, attr = slot.rpartition(".")
            if name in params:
                owned.setdefault(path, {})[attr] = name
        self._owners = [(path, model.get_submodule(path), attrs) for path, attrs in owned.items()]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Attach the forward hooks inside the block."""
        handles = [
            module.register_forward_hook(partial(self._forward, path, owned), with_kwargs=True)
            for path, module, owned in self._owners
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def explaining_shared_rows(self) -> Iterator[None]:
        """Name the layer if the model fails because one row for all samples became one row per sample."""
        try:
            yield
        except (RuntimeError, IndexError) as error:
            if self._shared is None:
                raise
            raise ValueError(
                f"layer {self._shared} saw one row for all samples, and the model fails if its output has one row per "
                f"sample ({str(error).splitlines()[0]}); if that row is one token of many, routed or packed, {ADVICE}"
            ) from error

    def backward(self, reached: list[Tensor]) -> None:
        """Run the backward pass, during which the gradients are passed on."""
        try:
            torch.autograd.grad(reached, self.roots, allow_unused=True)
        except CheckpointError as error:  # recomputation sees the model's own parameters again
            raise ValueError(_CHECKPOINTING) from error

    def finish(self) -> None:
        """Pass on the remaining parameters: those with a use that no log-likelihood depends on."""
        for name in list(self._pending):
            self._pass_on(name)

    def _forward(
        self, path: str, owned: dict[str, str], module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        if self._recomputing or not torch.is_grad_enabled():
            return None
        if self.group is None:
            raise ValueError(_CHECKPOINTING)
        if not isinstance(output, Tensor) or output.ndim == 0:
            raise ValueError(f"layer {path} returns {type(output).__name__}, not one row per sample; {ADVICE}")
        n = self._sizes[self.group]
        capture = Capture.of(path, module, owned, args, kwargs, n)
        if output.shape[0] == 1 and n > 1:  # one row for all samples, such as positions: expand it
            output = output.expand(n, *output.shape[1:])
            self._shared = path
        if not output.requires_grad:
            root = output.detach().requires_grad_()
            self.roots.append(root)
            output = root.clone()  # the model may not change a leaf in place
        for name in owned.values():
            pending = self._pending.setdefault(name, _Pending([[] for _ in self._sizes]))
            pending.awaited += 1
        source, output = _hookable(output)
        source.register_hook(partial(self._backward, self.group, capture, output.shape))  # type: ignore[no-untyped-call]
        return output

    def _backward(self, group: int, capture: Capture, shape: torch.Size, grad: Tensor) -> None:
        self._recomputing = True
        try:
            uses = capture.uses(grad.reshape(shape))
        finally:
            self._recomputing = False
        for name, use in uses.items():
            pending = self._pending[name]
            pending.uses[group].append(use)
            pending.awaited -= 1
            if pending.awaited == 0:
                self._pass_on(name)

    def _pass_on(self, name: str) -> None:
        pending = self._pending.pop(name)
        if any(pending.uses):
            shape = self._params[name].shape
            rows = shape[0] if shape else 1
            matrix = (rows, max(1, shape.numel() // max(1, rows)))
            self._visit(name, LayerGrads(pending.uses, self._sizes, matrix, self._dtype, self._params[name].device))


def _hookable(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor whose hook receives the gradient at the output, and the output to pass on.

    An in-place change of a view drops the view's node and hook from the graph, but not those of its base. A linear
    layer with a bias returns such a view; its base has the same elements with other axes.
    """
    base = output._base
    if base is None:
        return output, output
    if base.grad_fn is not None and base.numel() == output.numel() and base.is_contiguous() and output.is_contiguous():
        return base, output
    output = output.clone()
    return output, output
