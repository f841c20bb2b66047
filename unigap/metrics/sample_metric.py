"""Base class of the metrics: keep one row per judged sample, so that intervals can be computed from the rows.

Shapes: B samples of one update, S distinct samples in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from unigap.metrics.intervals import Estimate, check_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A padded sampler may judge one sample in two different batches; in half precision the two logits differ slightly.
_LOGIT_TOLERANCE = 0.25

_DTYPES = {
    "logit": torch.float32,
    "logit_before": torch.float32,
    "logit_after": torch.float32,
    "truth": torch.bool,
    "prompt": torch.int64,
    "sample": torch.int64,
}
_STATE_DTYPES = {**_DTYPES, "truth": torch.uint8}  # some process groups cannot send bool


class SampleMetric(Metric, ABC):
    """A metric that gathers rows from all processes, drops repeated rows and calls a pure function.

    A subclass defines ``columns``, ``score`` and ``update``, which takes ``prompt_B``, ``sample_B`` and an argument
    ``<column>_B`` for each column. Rows are sorted by sample id, so any number of processes gives exactly the numbers
    of one process, the interval included.

    Logits are kept in float32.

    Args:
        resamples: Number of bootstrap resamples for the interval, >= 1.
        seed: Seed of the bootstrap.
        kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``resamples`` is below 1.
    """

    is_differentiable = False
    full_state_update = False
    columns: ClassVar[tuple[str, ...]]
    score: ClassVar[Callable[..., Any]]

    def __init__(self, resamples: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if resamples < 1:
            raise ValueError(f"resamples must be >= 1, got {resamples}; 1000 is enough for a 95 % interval")
        self.options: dict[str, Any] = {"resamples": resamples, "seed": seed}
        for name in self._names():
            self.add_state(name, [], dist_reduce_fx="cat")

    @abstractmethod
    def bars(self, result: Any) -> dict[str, Estimate]:
        """Return the estimates of a result that a plot shows, by label."""

    def record(self, **batch: Tensor) -> None:
        """Check a batch and keep its rows; an empty batch adds none.

        Args:
            batch: ``<column>_B`` for every column, each of shape (B,).

        Raises:
            ValueError: If shapes differ, a dtype is not the column's, or a value is not finite.
        """
        check_columns(batch)
        for name in self._names():
            dtype, given = _DTYPES[name], batch[f"{name}_B"].dtype
            if given != dtype and not (given.is_floating_point and dtype.is_floating_point):
                kind = "floating point" if dtype.is_floating_point else str(dtype)
                raise ValueError(f"{name}_B must be {kind}, got {given}; convert it before the update")
        for name in self._names():
            getattr(self, name).append(batch[f"{name}_B"].detach().to(_STATE_DTYPES[name]))

    def compute(self) -> Any:
        """Return the score of all distinct samples so far, of all processes.

        Raises:
            ValueError: If one sample id came with different prompts, verdicts or logits.
        """
        rows = drop_duplicates({name: dim_zero_cat(getattr(self, name)).cpu() for name in self._names()})
        samples = {f"{name}_S": rows[name].to(_DTYPES[name]) for name in (*self.columns, "prompt")}
        return type(self).score(**samples, **self.options)

    def rows(self) -> dict[str, Tensor]:
        """Return the distinct samples so far, of all processes, sorted by id: columns of shape (S,), on the CPU.

        All processes must call this.

        Raises:
            ValueError: If one sample id came with different prompts, verdicts or logits.
        """
        with self.sync_context():
            found = drop_duplicates({name: dim_zero_cat(getattr(self, name)).cpu() for name in self._names()})
        return {name: column.to(_DTYPES[name]) for name, column in found.items()}

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot a result with its interval.

        Args:
            val: A result of ``compute``; computed now if omitted.
            ax: Axes to draw on; a new figure if omitted.

        Returns:
            The figure and its axes.
        """
        return plot_estimates(self.bars(self.compute() if val is None else val), type(self).__name__, ax)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Update and return the score of this batch alone."""
        result = super().forward(*args, **kwargs)
        self._forward_cache = None  # moving a metric maps over this cache, which fails on a frozen dataclass
        return result

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes."""
        for name in self._names():
            # A process without data would send float32 instead of ids: give it empty columns of the right dtype.
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.empty(0, dtype=_STATE_DTYPES[name], device=self.device)])
        super().sync(*args, **kwargs)

    def _names(self) -> tuple[str, ...]:
        return (*self.columns, "prompt", "sample")

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics rebuilds each result field by field, which fails on a frozen dataclass, so wrap it.
        sealed = super()._wrap_compute(lambda: _Sealed(compute()))
        return lambda: sealed().result


class _Sealed:
    """A result that torchmetrics does not take apart."""

    def __init__(self, result: Any) -> None:
        self.result = result


def drop_duplicates(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep one row of each sample, sorted by sample id, independent of the order of the rows.

    Args:
        rows: Columns of equal length by name, ``"sample"`` holding the sample ids.

    Returns:
        The same columns with S distinct samples.

    Raises:
        ValueError: Rows of one sample differ by more than numerical noise.

    >>> drop_duplicates({"sample": torch.tensor([4, 2, 4]), "prompt": torch.tensor([7, 6, 7])})["prompt"].tolist()
    [6, 7]
    """
    order = torch.arange(len(rows["sample"]))
    for column in (*rows.values(), rows["sample"]):  # stable sorts: by sample id, then by content
        order = order[column[order].argsort(stable=True)]
    rows = {name: column[order] for name, column in rows.items()}
    repeated = torch.zeros(len(order), dtype=torch.bool)
    repeated[1:] = rows["sample"].diff() == 0
    for name, column in rows.items():
        step = column.double().diff() if column.is_floating_point() else column.long().diff()
        conflict = repeated[1:] & (step.abs() > (_LOGIT_TOLERANCE if column.is_floating_point() else 0))
        if conflict.any():
            position = int(conflict.nonzero()[0])
            raise ValueError(
                f"sample {rows['sample'][position].item()} came with {name} {column[position].item()} and "
                f"{column[position + 1].item()}; give each sample its own id and reset() between evaluations"
            )
    return {name: column[~repeated] for name, column in rows.items()}


def plot_estimates(bars: Mapping[str, Estimate], title: str, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Plot estimates as dots with their intervals, from top to bottom.

    Args:
        bars: Estimates by label.
        title: Label of the value axis.
        ax: Axes to draw on; a new figure if omitted.

    Returns:
        The figure and its axes.
    """
    if ax is None:
        from matplotlib.figure import Figure  # not pyplot: no global state, and no cost without a plot

        ax = Figure(figsize=(6, 1 + 0.4 * len(bars)), layout="constrained").subplots()
    for row, estimate in enumerate(bars.values()):
        ax.plot([estimate.low, estimate.high], [row, row], color="tab:blue")
        ax.plot(estimate.value, row, marker="o", color="tab:blue")
    ax.set_yticks(range(len(bars)), [f"{label} (n = {estimate.n})" for label, estimate in bars.items()])
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlabel(title)
    return cast("Figure", ax.get_figure(root=True)), ax
