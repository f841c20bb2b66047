"""Compute one metric for all samples and for each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torchmetrics.wrappers.abstract import WrapperMetric

from unigap.metrics.intervals import Estimate, check_columns
from unigap.metrics.sample_metric import SampleMetric, plot_estimates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class GroupedMetric(WrapperMetric):
    """A metric of all samples and of each group, e.g. by category or difficulty.

    Args:
        metric: The metric; it is copied once for all samples and once for each group.
        names: Distinct names of the groups; sample group n has the n-th name.

    Raises:
        ValueError: There are no names, one occurs twice, or one is ``"all"``.

    >>> from unigap.metrics import GenerationAccuracy
    >>> metric = GroupedMetric(GenerationAccuracy(), ["easy", "hard"])
    >>> batch = {"prompt_B": torch.arange(4), "sample_B": torch.arange(4)}
    >>> metric.update(truth_B=torch.tensor([True, True, False, True]), group_B=torch.tensor([0, 0, 1, 1]), **batch)
    >>> {name: estimate.value for name, estimate in metric.compute().items()}
    {'all': 0.75, 'easy': 1.0, 'hard': 0.5}
    """

    def __init__(self, metric: SampleMetric, names: Sequence[str]) -> None:
        super().__init__()
        if not names or len(set(names)) < len(names) or "all" in names:
            raise ValueError(f"names must be distinct, at least one and none of them 'all', got {list(names)}")
        self.names = ("all", *names)
        self.metrics = nn.ModuleList(metric.clone() for _ in self.names)

    def update(self, *, group_B: Tensor, **batch: Tensor) -> None:
        """Add a batch of samples.

        Args:
            group_B: Group of each sample, int64 in [0, number of names), shape (B,).
            batch: The arguments of the metric's ``update`` by name, each of shape (B,).

        Raises:
            ValueError: A group is out of range, or as for the metric.
        """
        groups = len(self.names) - 1
        if group_B.dtype != torch.int64 or group_B.ndim != 1:
            raise ValueError(f"group_B must be int64 of shape (B,), got {group_B.dtype}, {tuple(group_B.shape)}")
        if ((group_B < 0) | (group_B >= groups)).any():
            raise ValueError(
                f"group_B must be in [0, {groups}), got {group_B.min()} to {group_B.max()}; names lists the groups"
            )
        everything, *parts = self._metrics()
        batch = everything._filter_kwargs(**batch)  # for use in a MetricCollection
        check_columns({**batch, "group_B": group_B})
        everything.update(**batch)
        for group, part in enumerate(parts):  # also groups without rows, which would otherwise warn at compute
            part.update(**{name: column_B[group_B == group] for name, column_B in batch.items()})

    def compute(self) -> dict[str, Any]:
        """Return the result for ``"all"`` and for each group, by name."""
        return {name: metric.compute() for name, metric in zip(self.names, self._metrics(), strict=True)}

    def rows(self) -> dict[str, Tensor]:
        """Return the samples of all groups; see ``SampleMetric.rows``."""
        return self._metrics()[0].rows()

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        for metric in self._metrics():
            metric.reset()

    def plot(self, val: dict[str, Any] | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot all groups with their intervals, one below another.

        Args:
            val: A result of ``compute``; computed now if omitted.
            ax: Axes to draw on; a new figure if omitted.

        Returns:
            The figure and its axes.
        """
        metric = self._metrics()[0]
        bars: dict[str, Estimate] = {}
        for name, result in (self.compute() if val is None else val).items():
            parts = metric.bars(result)
            bars.update({name if len(parts) == 1 else f"{name}: {label}": part for label, part in parts.items()})
        return plot_estimates(bars, type(metric).__name__, ax)

    def _metrics(self) -> list[SampleMetric]:
        return cast("list[SampleMetric]", list(self.metrics))
