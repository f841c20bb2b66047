"""Every notebook runs from top to bottom, and is shipped with what it printed and drew."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_ships_with_its_outputs(path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    shipped = nbformat.read(path, as_version=4)
    cells = [cell for cell in shipped.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it anew and save it"
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures, "a notebook shows something"
    nbclient.NotebookClient(shipped, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
