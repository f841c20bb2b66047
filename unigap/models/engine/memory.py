"""Size batches by the memory of the device, halve them if memory runs out, and tune the allocator to the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from unigap.console import tasks
from unigap.console.allocator import keep_freed_memory, return_freed_memory

SHARE = 0.5
"""Share of the memory left by the weights that a batch may use; training state uses the rest."""
SMALL = 1 << 28
"""Bytes of weights up to which the allocator keeps what a model on a CPU frees."""

Result = TypeVar("Result")


def settle_memory(model: nn.Module, device: torch.device | str) -> None:
    """Keep freed memory for a small model on a CPU; otherwise return what loading or restoring has freed.

    Args:
        model: The model.
        device: The device that it runs on.
    """
    if torch.device(device).type == "cpu" and _bytes_of(model) <= SMALL:
        keep_freed_memory()
    else:
        return_freed_memory()


def items_that_fit(model: nn.Module, item_bytes: int) -> int:
    """Return how many items of ``item_bytes`` a batch may hold next to ``model``, at least 1.

    Uses the total memory, not the free memory, so that a repeated run makes the same batches.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, int(SHARE * (total - _bytes_of(model))) // item_bytes)


def _bytes_of(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


@dataclass
class BatchLimit:
    """Number of items above which an earlier batch did not fit, shared by the batches of one kind; None if all did."""

    items: int | None = None


def in_fitting_batches(
    run: Callable[[slice], Result], count: int, size: int, too_large: str, limit: BatchLimit | None = None
) -> Iterator[Result]:
    """Run over ``count`` items in order, in batches of at most ``size``, halved when memory runs out.

    Args:
        run: Processes a slice of the items.
        count: Number of items.
        size: Maximum batch size, >= 1.
        too_large: Message if a single item does not fit.
        limit: Remembers the size that fits, so that later calls do not try larger batches again.

    Yields:
        The result of ``run`` for each slice.

    Raises:
        ValueError: Memory runs out for a single item.
    """
    limit, start = limit or BatchLimit(), 0
    while start < count:
        size = min(size, limit.items or size)
        batch = slice(start, min(start + size, count))
        result = _unless_out_of_memory(run, batch)
        if result is not None:
            tasks.report(batch.stop, count)
            yield result
            start = batch.stop
        elif batch.stop - start == 1:
            raise ValueError(f"out of memory: {too_large}")
        else:
            limit.items = (batch.stop - start) // 2


def _unless_out_of_memory(run: Callable[[slice], Result], batch: slice) -> Result | None:
    try:
        return run(batch)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        # torch has no exception class for this on a CPU
        if "DefaultCPUAllocator" in str(error):
            return None
        raise
