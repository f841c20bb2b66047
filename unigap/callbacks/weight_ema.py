"""Measures and keeps averaged weights instead of the last step's."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightEMA(WeightAveraging):
    """Lightning's weight averaging as an exponential moving average in which what does not train keeps every bit.

    Lightning's own ``EMAWeightAveraging`` adds two rounded products, and does so with buffers too: frozen bfloat16
    weights come out a bit off, and so do whole numbers such as a vision tower's positions. Here averages are
    interpolated, which leaves equal numbers alone, and buffers are the model's.

    Args:
        decay: Share of the old average that each update keeps, in [0, 1).
        each: When the average is updated, after every optimizer ``step`` or every ``epoch``. The first update starts
            the average.

    Raises:
        ValueError: For a decay out of range.
    """

    def __init__(self, decay: float = 0.999, each: Literal["step", "epoch"] = "step") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay of the averaged weights is {decay}; it must lie in [0, 1)")
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self.each = each

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Says whether this is the end of what is averaged over."""
        return (step_idx if self.each == "step" else epoch_idx) is not None
