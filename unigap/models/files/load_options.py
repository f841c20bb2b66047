"""Check the options a checkpoint is loaded with: precision, attention implementation and device."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of a model that trains."""
PRECISIONS = {"auto": "auto", **DTYPES}
"""Precisions of a model that is only used; ``auto`` keeps the checkpoint's own."""


def check_load_options(dtype: str, attn_implementation: str, device: str) -> None:
    """Check the options that a model family is loaded with.

    Raises:
        ValueError: The precision is not in ``DTYPES``; the attention implementation takes no custom mask, so that
            packed questions would attend to each other; or the device does not exist.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of: {', '.join(DTYPES)}")
    if attn_implementation not in ("sdpa", "eager"):
        raise ValueError(f"attn_implementation must be 'sdpa' or 'eager', got {attn_implementation!r}")
    check_device(device)


def check_device(device: str) -> None:
    """Check that a tensor can be placed on a device.

    Raises:
        ValueError: It cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise ValueError(f"device {device!r} is not available; give cpu, cuda, or cuda: and a number") from error
