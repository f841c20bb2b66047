"""The pins: exact, with the hashes of their files, for everything that setup.cfg and the build backend name."""

from __future__ import annotations

import ast
import configparser
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTS = {"lmms_eval"}
"""Programs that import unigap's adapter for them; unigap itself never imports the adapter."""
FILES = ("constraints.txt", "constraints-cpu.txt", "constraints-cuda.txt")


def requirements(text: str) -> list[str]:
    """The requirements of a file, each on one line, comments left out."""
    joined = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", "")
    return [line for line in joined.splitlines() if line.strip()]


def names(lines: list[str]) -> set[str]:
    """Normalised names of projects."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line.strip(), maxsplit=1)[0]).lower() for line in lines}


@pytest.mark.parametrize("name", FILES)
def test_every_pin_is_exact_and_has_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    for line in requirements(text):
        assert re.match(r"[\w.-]+==[\w.!+]+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+$", line), line[:120]
    assert "://" not in text and "index" not in text, "a pin says what is installed, not where from"


def imported(folder: str) -> set[str]:
    """Top-level names of the modules that a package imports, anywhere in its files."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).split(".")[0])
    return found - {*sys.stdlib_module_names, "unigap", "theory"}


def test_every_package_that_is_imported_is_named() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    texts = [config["options"]["install_requires"], *(extras[name] for name in ("diffusion", "quantized", "vqa"))]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    named, projects = names(lines), packages_distributions()
    needed = (imported("unigap") | imported("theory")) - HOSTS
    missing = {name for name in needed if not names(projects[name]) & named}
    assert not missing, "list it in setup.cfg"


def test_everything_that_is_named_is_pinned() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    options = [config["options"]["install_requires"], *dict(config["options.extras_require"]).values()]
    wanted = [line for text in options for line in text.splitlines() if line.strip() and not line.startswith("#")]
    wanted += tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pinned = names(requirements((ROOT / "constraints.txt").read_text()))
    assert names(wanted) - pinned == set(), "run make pins"
    assert {"torch", "setuptools"} <= pinned
