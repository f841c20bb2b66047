"""Tune glibc's allocator to keep freed memory in the process."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameter numbers of glibc's ``mallopt``."""
KEPT = 1 << 30
"""Bytes of freed memory at the end of the heap that glibc keeps."""
BLOCK = 1 << 28
"""Size in bytes from which a freed block returns to the system, e.g. weights of a large model moved to a GPU."""


def keep_freed_memory() -> None:
    """Make glibc keep freed memory; do nothing on other systems or if a ``MALLOC_`` variable is set.

    A training step on a CPU frees and allocates the same hundred megabytes. By default glibc returns them to the
    system each time, and a fifth of the time goes into zeroing pages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, BLOCK)
