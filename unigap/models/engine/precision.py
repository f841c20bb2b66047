"""Precision of arithmetic: weights that autocast casts once, and float32 that is float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def weights_cast_once(device_type: str) -> Iterator[None]:
    """Let autocast keep the trained weights it has cast, instead of casting them again for every token.

    Lightning's mixed precision turns autocast's cache off. The results are the same bits.

    Args:
        device_type: ``cpu`` or ``cuda``. Nothing happens there without autocast.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    with torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=True):
        try:
            yield
        finally:
            # a training step changes the weights, and the outer context may still be open
            torch.clear_autocast_cache()


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the precision in which a matrix product takes ``tensor``: autocast's if it is on."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


@contextmanager
def float32_arithmetic(device_type: str) -> Iterator[None]:
    """Compute in float32 without autocast and without TF32, which cuDNN uses for convolutions by default.

    Args:
        device_type: ``cpu`` or ``cuda``.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
