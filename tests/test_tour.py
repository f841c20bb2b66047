"""The tour of the code: every function it names is where it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
STOPS = sorted(set(re.findall(r"`([\w.]+)`\s+in\s+`(unigap/[\w/]+\.py)`", PAGE)))
PATHS = sorted(set(re.findall(r"`(unigap/[\w/.]+)`", PAGE)))


def defined(path: str) -> set[str]:
    """Functions, classes and methods of a file, methods as ``Class.method``."""
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("name", "path"), STOPS)
def test_a_stop_of_the_tour_is_there(name: str, path: str) -> None:
    assert name in defined(path)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_the_tour_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_tour_has_its_stops() -> None:
    assert len(STOPS) > 30
    assert {"run_round", "checkpoint_to_resume", "dpo_loss"} <= {name for name, _ in STOPS}
