"""Lock of a folder: one process writes at a time; a second waits, or gets an error that names the first."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from unigap.files.durable import LOCK, explain_write_errors

PATIENCE = 60.0
"""Seconds to wait for a short write of another process."""


class WriterLock:
    """Lock that keeps other processes from writing a folder; readers need no lock.

    It belongs to the process: a second ``WriterLock`` of the same folder in the same process is granted at once. The
    operating system releases it when the process ends, even by a kill.

    Args:
        folder: The folder, which exists.
        patience: Seconds to wait for another process; 0 does not wait.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self._folder, self._patience = folder, patience
        self._path = folder.absolute() / LOCK
        self._lock = FileLock(self._path, is_singleton=True, thread_local=False)

    def acquire(self) -> None:
        """Acquire the lock, and record the process in the lock file.

        Raises:
            ValueError: Another process holds it; the message names it.
            OSError: The folder cannot be written.
        """
        with explain_write_errors(self._folder):
            try:
                self._lock.acquire(timeout=self._patience)
            except Timeout:
                holder = self._holder()
                raise ValueError(
                    f"{self._folder} is being written by {holder}; wait until that is done, or give another folder"
                ) from None
        with suppress(OSError):  # on a full disk, the lock works without the record
            command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:100]
            since = datetime.now().isoformat(" ", "seconds")
            self._path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})")

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self._lock.lock_counter == 1:
            with suppress(OSError):  # the folder may have been deleted
                os.truncate(self._path, 0)
        self._lock.release()

    def __enter__(self) -> WriterLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _holder(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")[:300] or "another process"
        except OSError:
            return "another process"
