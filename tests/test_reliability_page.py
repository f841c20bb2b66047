"""The table of promises: every test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.partition("## Every promise")[2].splitlines() if line.startswith("|") and "::" in line]


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_a_promise_names_tests_that_are_there(row: str) -> None:
    path = ""
    named = re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", row)
    assert named
    for file, test in named:
        path = file or path
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


def test_the_table_is_read() -> None:
    assert len(ROWS) > 35
