"""Imports run downward, in no circle, through the floors that CONTRIBUTING.md lists; theory stands beside the house."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = re.findall(r"^\| (\d+) \|[^|]*\|(.*)\|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
FLOOR_OF = {f"unigap.{room}": int(floor) for floor, rooms in FLOORS for room in re.findall(r"`(\w+)/?`", rooms)}
USE_THEORY = ("unigap.callbacks.dynamics",)
NOT_IN_THE_WHEEL = ("evidence", "benchmarks", "tests")

Imports = Mapping[str, set[str]]


def imports_of(root: Path) -> dict[str, set[str]]:
    """What each module of unigap and theory imports of the two, wherever in the file it does so."""
    paths = {
        _module(path.relative_to(root)): path for name in ("unigap", "theory") for path in (root / name).rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module}: relative import"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in paths else str(node.module) for name in whole]
            else:
                continue
            found[module] |= {
                name for name in names if name.split(".")[0] in ("unigap", "theory", *NOT_IN_THE_WHEEL)
            } - {module}
    return found


def faults(imports: Imports, floor_of: Mapping[str, int]) -> list[str]:
    """Every import that breaks the order, as a line."""
    found = []
    for module, names in sorted(imports.items()):
        here = _room(module)
        if here not in floor_of and here not in ("unigap", "theory"):
            found.append(f"{here} stands on no floor; put it on one")
            continue
        for name in sorted(names):
            there = _room(name)
            if name.split(".")[0] in NOT_IN_THE_WHEEL:
                found.append(f"{module} imports {name}, which the wheel does not hold")
                continue
            if there == here:
                continue
            if there == "theory":
                if not module.startswith(USE_THEORY):
                    found.append(f"{module} uses theory")
            elif here == "theory":
                found.append(f"{module} imports {name}")
            elif here == "unigap" or (there != "unigap" and floor_of.get(there, 0) > floor_of[here]):
                found.append(f"{module} (floor {floor_of.get(here, 0)}) imports {name} ({floor_of.get(there, 0)})")
    try:
        TopologicalSorter({module: names & imports.keys() for module, names in imports.items()}).prepare()
    except CycleError as error:
        found.append(f"circle: {' -> '.join(error.args[1])}")
    return found


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _room(module: str) -> str:
    parts = module.split(".")
    return "theory" if parts[0] == "theory" else ".".join(parts[:2])


IMPORTS = imports_of(ROOT)


def test_every_import_goes_down() -> None:
    assert len(IMPORTS) > 100 and faults(IMPORTS, FLOOR_OF) == []


def test_the_table_of_floors_names_what_is_there() -> None:
    assert sorted(FLOOR_OF) == sorted({_room(module) for module in IMPORTS} - {"unigap", "theory"})


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("unigap.records", "unigap.pool.pool"),
        ("unigap.pool.pool", "unigap.data"),
        ("unigap.stages.base", "unigap.callbacks.regrow"),
        ("unigap", "unigap.records"),
        ("unigap.stages.sft", "theory"),
        ("theory.kernel", "unigap.records"),
        ("unigap.judges.base", "unigap.judges.vqa"),
        ("unigap.newcomer", "unigap.records"),
        ("unigap.cli.verbs", "evidence.verbs"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, name: str) -> None:
    changed = {**IMPORTS, module: IMPORTS.get(module, set()) | {name}}
    assert set(faults(changed, FLOOR_OF)) - set(faults(IMPORTS, FLOOR_OF))


def test_importing_unigap_brings_no_torch() -> None:
    code = "import sys, unigap; print(*{'torch', 'numpy', 'lightning', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "\n"


def test_no_module_of_theory_hides_behind_a_name_it_exports() -> None:
    import theory

    modules = {path.stem for path in (ROOT / "theory").glob("*.py")}
    assert modules & set(theory.__all__) == set()
