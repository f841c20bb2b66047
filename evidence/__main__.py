"""``python -m evidence TOPIC``: repeat a measurement behind the documentation."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evidence.verbs import TOPICS
from unigap.__main__ import answer
from unigap.cli.verbs import run_function


def main(argv: Sequence[str] | None = None) -> int:
    """Run one topic.

    Args:
        argv: Arguments after ``python -m evidence``; ``None`` takes those of the process.

    Returns:
        The exit status: 0, or 2 after a user mistake.
    """
    return answer(list(sys.argv[1:] if argv is None else argv), _run)


def _run(words: Sequence[str]) -> int:
    return run_function(TOPICS, words, "python -m evidence")


if __name__ == "__main__":
    sys.exit(main())
