"""Standard output that survives a closed pipe: ``unigap fit | head`` trains to its end."""

from __future__ import annotations

import io
import os
import sys


class _Outlet(io.FileIO):
    """File descriptor that turns into the null device once the other end of the pipe is closed."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return super().write(data)  # type: ignore[arg-type]


def outlive_reader() -> None:
    """Keep a command running when the reader of its standard output closes the pipe."""
    old = sys.stdout
    if not isinstance(old, io.TextIOWrapper):
        return
    old.flush()
    raw = _Outlet(old.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), old.encoding, old.errors, line_buffering=old.line_buffering)
