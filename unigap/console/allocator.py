"""Tune glibc's allocator: keep freed memory for a small model on a CPU, return it otherwise."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameter numbers of glibc's ``mallopt``."""
KEPT = 1 << 30
"""Bytes of freed memory at the end of the heap that glibc keeps for a small model."""
BLOCK = 1 << 28
"""Size in bytes from which a freed block of a small model returns to the system."""
USUAL_BLOCK = 1 << 25
"""The same for other models: the largest size that glibc chooses by itself."""


def keep_freed_memory() -> None:
    """Make glibc keep freed memory; do nothing on other systems or if a ``MALLOC_`` variable is set.

    A training step of a small model on a CPU frees and allocates the same hundred megabytes. By default glibc returns
    them to the system each time, and a fifth of the time goes into zeroing pages. A large model would keep gigabytes.
    """
    _set_limits(KEPT, BLOCK)


def return_freed_memory() -> None:
    """Make glibc return freed memory to the system, now and later; do nothing on other systems."""
    _set_limits(2 * USUAL_BLOCK, USUAL_BLOCK)
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _set_limits(kept: int, block: int) -> None:
    if _is_glibc() and not any(name.startswith("MALLOC_") for name in os.environ):
        glibc = ctypes.CDLL(None)
        glibc.mallopt(TRIM_THRESHOLD, kept)
        glibc.mallopt(MMAP_THRESHOLD, block)


def _is_glibc() -> bool:
    return os.name == "posix" and getattr(ctypes.CDLL(None), "malloc_trim", None) is not None
