"""Read the peak memory of this process from Linux's /proc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def added_mib(run: Callable[[], object], times: int = 1) -> float:
    """Return the peak memory that ``times`` calls of ``run`` add to what this process holds, in MiB."""
    start = _status_mib("VmRSS")
    for _ in range(times):
        run()
    return _status_mib("VmHWM") - start


def _status_mib(field: str) -> float:
    """Return a field of this process's status; unlike ru_maxrss it is not inherited by a started process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024
