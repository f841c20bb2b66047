"""Memory that is freed stays with the process for what is needed next."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's ``mallopt``."""
KEPT = 1 << 30
"""Bytes of freed memory at the end of the heap that are not handed back."""
BLOCK = 1 << 28
"""Bytes from which a block is handed back when it is freed, such as a large model's weights on their way to a GPU."""


def keep_freed_memory() -> None:
    """Has glibc keep what tensors free; other systems and an allocation policy from the environment are left alone.

    A step on a CPU frees and takes the same hundred megabytes. By default glibc hands them back each time, and a fifth
    of the time goes into zeroed pages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, BLOCK)
