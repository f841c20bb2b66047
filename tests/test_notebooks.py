"""Every notebook runs from top to bottom and is shipped with its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IN_SMALL = {
    "01_measure_the_gap": {
        '"test", per_cell=6': '"test", per_cell=2',
        '"test", 400': '"test", 60',
    },
    "02_one_round": {
        '"test", per_cell=8': '"test", per_cell=2',
        '"test", 300': '"test", 60',
        "RoundPlan(candidates=8, seed=0)": "RoundPlan(candidates=4, seed=0)",
        "max_epochs=4": "max_epochs=1",
    },
    "03_learning_dynamics": {"per_cell=5": "per_cell=3", "per_group=10": "per_group=5"},
    "04_reading_a_sweep": {
        "(2, 8), (0.0001, 0.5, 0.65), 24": "(2, 4), (0.0001, 0.5), 3",
        '"test", per_cell=5': '"test", per_cell=2',
        'pool", per_cell=5': 'pool", per_cell=2',
    },
}
"""Smaller counts for the tests; ``make notebooks`` runs the notebooks as they are."""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """A kernel for all notebooks: starting one for each would import torch each time."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    empty = nbformat.v4.new_notebook()
    client = nbclient.NotebookClient(empty, timeout=600, resources={"metadata": {"path": str(FOLDER)}})
    with client.setup_kernel():
        yield client


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_ships_with_its_outputs(path: Path, kernel: Any) -> None:
    nbformat = pytest.importorskip("nbformat")
    shipped = nbformat.read(path, as_version=4)
    cells = [cell for cell in shipped.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it anew and save it"
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures, "a notebook shows something"
    for count, smaller in IN_SMALL.get(path.stem, {}).items():
        assert any(count in cell.source for cell in cells), f"{count} is no longer there: see IN_SMALL"
        for cell in cells:
            cell.source = cell.source.replace(count, smaller)
    # no name of another notebook
    forget = nbformat.v4.new_code_cell("%reset -f")
    kernel.nb = nbformat.v4.new_notebook(cells=[forget, *cells])
    kernel.reset_execution_trackers()
    for index, cell in enumerate(kernel.nb.cells):
        kernel.execute_cell(cell, index)
