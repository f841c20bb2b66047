"""Every notebook runs from top to bottom and is shipped with its outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

IN_SMALL = {
    "01_measure_the_gap": {
        '"test", per_cell=6': '"test", per_cell=3',
        '"test", 400': '"test", 120',
    },
    "02_one_round": {
        '"test", per_cell=8': '"test", per_cell=3',
        '"test", 300': '"test", 120',
        "RoundPlan(candidates=8, seed=0)": "RoundPlan(candidates=4, seed=0)",
        "max_epochs=4": "max_epochs=1",
    },
    "04_reading_a_sweep": {"(2, 8), (0.0001, 0.5, 0.95), 24": "(2, 8), (0.0001, 0.5, 0.95), 6"},
}
"""Smaller counts for the tests; ``make notebooks`` runs the notebooks as they are."""
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_ships_with_its_outputs(path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    shipped = nbformat.read(path, as_version=4)
    cells = [cell for cell in shipped.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it anew and save it"
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures, "a notebook shows something"
    for count, smaller in IN_SMALL.get(path.stem, {}).items():
        assert any(count in cell.source for cell in cells), f"{count} is no longer there: see IN_SMALL"
        for cell in cells:
            cell.source = cell.source.replace(count, smaller)
    nbclient.NotebookClient(shipped, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
