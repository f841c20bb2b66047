"""Standard output whose reader may leave: ``unigap fit | head`` trains to its end."""

from __future__ import annotations

import io
import os
import sys


class _Outlet(io.FileIO):
    """A file descriptor that leads nowhere once the other end of the pipe is closed."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)  # type: ignore[arg-type]


def outlive_reader() -> None:
    """Keep a command running when the reader of its standard output leaves."""
    old = sys.stdout
    if not isinstance(old, io.TextIOWrapper):
        return
    old.flush()
    raw = _Outlet(old.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), old.encoding, old.errors, line_buffering=old.line_buffering)
