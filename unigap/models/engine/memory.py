"""Batches that fit: sized beforehand by what the machine has, halved when memory runs out all the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn

SHARE = 0.5
"""Share of what the weights leave free that a batch may take: training keeps its own things in the rest."""

Result = TypeVar("Result")


def items_that_fit(model: nn.Module, item_bytes: int) -> int:
    """How many items of so many bytes a batch may hold beside ``model``, at least 1.

    It looks at what the machine has and not at what is free just now: the same run makes the same batches again.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return max(1, int(SHARE * (total - weights)) // item_bytes)


def in_fitting_batches(run: Callable[[slice], Result], count: int, size: int, too_large: str) -> Iterator[Result]:
    """Runs over ``count`` items in order, in batches of at most ``size`` that are halved when memory runs out.

    Args:
        run: Works on a slice of the items.
        count: How many there are.
        size: Most in one batch, >= 1.
        too_large: What to say when a single item is too much.

    Yields:
        What ``run`` made of each slice.

    Raises:
        ValueError: When memory runs out over a single item.
    """
    start = 0
    while start < count:
        batch = slice(start, min(start + size, count))
        result = _unless_out_of_memory(run, batch)
        if result is not None:
            yield result
            start = batch.stop
        elif batch.stop - start == 1:
            raise ValueError(f"out of memory: {too_large}")
        else:
            size = (batch.stop - start) // 2


def _unless_out_of_memory(run: Callable[[slice], Result], batch: slice) -> Result | None:
    try:
        return run(batch)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        # torch has no class of its own for this on a CPU
        if "DefaultCPUAllocator" in str(error):
            return None
        raise
