"""One writing process for each folder; a second one waits or is told which process it waits for."""

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
"""Seconds to wait for a writer that is done in a moment."""


class WriterLock:
    """Keeps other processes from writing a folder while it is held; readers need no lock.

    It belongs to the process: a second ``WriterLock`` of the same folder in the same process is granted at once. The
    system releases it when the process ends, however it ends.

    Args:
        folder: The folder, which exists.
        patience: Seconds to wait for another process; 0 does not wait.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self._folder, self._patience = folder, patience
        self._path = folder.absolute() / LOCK
        self._lock = FileLock(self._path, is_singleton=True, thread_local=False)

    def acquire(self) -> None:
        """Take the lock and write down who holds it.

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
        with suppress(OSError):  # on a full disk the lock holds without a name
            command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:100]
            since = datetime.now().isoformat(" ", "seconds")
            self._path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})")

    def release(self) -> None:
        """Give the lock back; without effect where it is not held."""
        if self._lock.lock_counter == 1:
            with suppress(OSError):  # the folder may be gone
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
