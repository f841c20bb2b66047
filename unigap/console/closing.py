"""The last lines of a command: what it made and where, how long it took, and the next command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from unigap.console import tasks


def close(made: Mapping[str, object], then: str) -> None:
    """Print the last lines of a command.

    What was made goes to standard output, like the figures of a command; the rest goes to standard error.

    Args:
        made: Paths by what they hold.
        then: What to do next: a command, see `command`, or a sentence.
    """
    for name, place in made.items():
        print(f"{name}: {place}")
    sys.stdout.flush()
    for line in filter(None, (tasks.durations(), f"next: {then}")):
        print(line, file=sys.stderr, flush=True)


def command(*words: object) -> str:
    """Return a ``unigap`` command to type; words in capitals stand for the reader's own.

    >>> command("report", "runs/my run"), command("judge", "import", "POOL", "SHEET")
    ("unigap report 'runs/my run'", 'unigap judge import POOL SHEET')
    """
    return shlex.join(["unigap", *map(str, words)])
