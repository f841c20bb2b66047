"""Stop sampling where a model computes numbers that are not finite."""

from __future__ import annotations

import torch


def check_finite(finite: torch.Tensor, numbers: str) -> None:
    """Check numbers that a model computed; the host waits for them, so check once an image rather than once a token.

    Args:
        finite: Which numbers are finite, bool.
        numbers: Name of the numbers, for the message.

    Raises:
        ValueError: Some are not finite.
    """
    if not finite.all():
        raise ValueError(
            f"the model's {numbers} are not finite: its weights are damaged or diverged; use an earlier checkpoint"
        )
