"""The commands in ``docs/tracking.md``, so that tests run what a reader would type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tracking.md"


def commands() -> list[list[str]]:
    """The words after ``unigap`` of every command on the page; paths of configs are absolute."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("unigap ")]
    return [[re.sub("^configs/", f"{ROOT}/configs/", word) for word in shlex.split(line)[1:]] for line in lines]


def documented(*marks: str) -> list[str]:
    """The command on the page that holds these words."""
    (found,) = [words for words in commands() if all(any(mark in word for word in words) for mark in marks)]
    return found
