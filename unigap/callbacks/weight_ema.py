"""Evaluate and save averaged weights instead of those of the last step."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights that leaves frozen weights and buffers bit for bit unchanged.

    Lightning's ``EMAWeightAveraging`` adds two rounded products, also for buffers. This changes frozen bfloat16 weights
    slightly, and integers such as the positions of a vision encoder. Here averages are interpolated, which keeps equal
    numbers unchanged, and buffers are the model's.

    Args:
        decay: Share of the old average that each update keeps, in [0, 1).
        each: Update the average after every optimizer ``step`` or every ``epoch``. The first update starts the
            average.

    Raises:
        ValueError: The decay is out of range.
    """

    def __init__(self, decay: float = 0.999, each: Literal["step", "epoch"] = "step") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay of the averaged weights is {decay}; it must lie in [0, 1)")
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self.each = each

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the average is updated here."""
        return (step_idx if self.each == "step" else epoch_idx) is not None
