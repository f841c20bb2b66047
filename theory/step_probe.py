"""Probe around one optimizer step: predicted and measured change of every log-likelihood."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from theory.contract import Source, checked_logps, checked_sources, sample_count
from theory.directional_derivative import Direction, directional
from theory.optimizer_parts import StepParts
from theory.prediction_fit import Fit, fit
from theory.selection import Select, select_parameters


class LowPrecisionWarning(UserWarning):
    """Measured changes are rounding noise at small steps."""


@dataclass(frozen=True)
class StepReport:
    """Changes of the probes' log-likelihoods in one optimizer step; samples in the order of the sources.

    Attributes:
        measured: Change of each log-likelihood, shape (N,), float64, in nats.
        predicted: First-order prediction along the actual step, shape (N,), float64.
        parts: The prediction split by part of the step (``"gradient"``, ``"momentum"``, ``"weight_decay"``), which add
            up to ``predicted``; empty for optimizers other than SGD, Adam and AdamW.
        step_norm: Norm of the whole step (``"step"``) and of each part.
        sizes: Number of samples of each source.
    """

    measured: Tensor
    predicted: Tensor
    parts: Mapping[str, Tensor]
    step_norm: Mapping[str, float]
    sizes: tuple[int, ...]

    def of(self, source: int) -> StepReport:
        """Return the report on the samples of one source."""
        start = sum(self.sizes[:source])
        span = slice(start, start + self.sizes[source])
        parts = {name: part[span] for name, part in self.parts.items()}
        return StepReport(self.measured[span], self.predicted[span], parts, self.step_norm, (self.sizes[source],))

    def fit(self) -> Fit:
        """Return the fit of measured to predicted changes; needs at least two samples."""
        return fit(self.predicted, self.measured)


class StepProbe:
    """Compares predicted with measured changes over an optimizer step; works with any torch optimizer.

    Call :meth:`before`, let the optimizer step, call :meth:`after`. Neither changes weights, gradients, optimizer
    state, train or eval mode, or the state of the random generators. The snapshot holds a copy of the selected
    parameters.

    Args:
        model: The model being trained; the probe itself runs in eval mode.
        optimizer: The optimizer that steps it.
        sources: Log-likelihoods and batches of the probes.
        select: The parameters whose step is followed; None for all that train.
        method: Forward mode (``"jvp"``), or ``"reverse"`` for fused attention.

    Raises:
        ValueError: If the optimizer steps none of the selected parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sources: Sequence[Source],
        select: Select = None,
        method: Direction = "jvp",
    ) -> None:
        self._model, self._optimizer, self._method = model, optimizer, method
        self._sources = checked_sources(sources)
        self._params = select_parameters(model, select)
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in stepped for p in self._params.values()):
            raise ValueError("the optimizer steps none of the selected parameters; build it on this model's parameters")
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in self._params.values()):
            warnings.warn(
                "parameters are in half precision, where the change of one small step is rounding noise; "
                "keep float32 master weights",
                LowPrecisionWarning,
                stacklevel=2,
            )
        self._snapshot: dict[str, Tensor] | None = None

    def before(self) -> None:
        """Take the snapshot; call it after the backward pass, right before the optimizer steps."""
        self._snapshot = {name: p.detach().clone() for name, p in self._params.items()}
        self._step = StepParts(self._optimizer, self._params)
        self._values = self._read()

    def after(self) -> StepReport:
        """Predict and measure the changes; call it after the optimizer has stepped.

        Returns:
            Predicted and measured changes.

        Raises:
            ValueError: If :meth:`before` was not called for this step.
        """
        if self._snapshot is None:
            raise ValueError("after() without before(); call before() right before each optimizer step")
        start, self._snapshot = self._snapshot, None
        measured = self._read() - self._values
        steps = {"step": {name: p.detach().double() - start[name].double() for name, p in self._params.items()}}
        steps.update(self._step.parts())
        with _evaluating(self._model):
            # same batch, same parameters: a check along the whole step holds for its parts too
            predicted = {name: self._predict(delta, start, check=name == "step") for name, delta in steps.items()}
        norms = {name: _norm(delta) for name, delta in steps.items()}
        sizes = tuple(sample_count(batch) for _, batch in self._sources)
        return StepReport(measured, predicted.pop("step"), predicted, norms, sizes)

    def _predict(self, delta: Mapping[str, Tensor], start: Mapping[str, Tensor], check: bool) -> Tensor:
        return directional(self._model, self._sources, delta, self._method, at=start, check=check).double()

    def _read(self) -> Tensor:
        with _evaluating(self._model), torch.no_grad():
            logps = [
                checked_logps(fn(self._model, batch), sample_count(batch), group).double()
                for group, (fn, batch) in enumerate(self._sources)
            ]
        return torch.cat(logps)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Use eval mode and a separate random state inside the block."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=_cuda_devices(model)):
            yield
    finally:
        for module, training in modes:
            module.training = training


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})


def _norm(delta: Mapping[str, Tensor]) -> float:
    return float(torch.stack([change.norm() for change in delta.values()]).norm())
