"""Load an exported folder with the code on its card, and compare it with the checkpoint it started from.

Run ``python -m benchmarks.reload FAMILY FOLDER BASE``.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from unigap.models.emu3 import Emu3
from unigap.models.janus import Janus
from unigap.models.showo import ShowO

FAMILIES = {"janus-pro-1b": Janus, "janus-pro-7b": Janus, "show-o": ShowO, "emu3": Emu3}


def loaded(family: str, folder: str) -> Any:
    """Return the model that the code on the folder's card loads."""
    names: dict[str, Any] = {"FOLDER": folder}
    exec(FAMILIES[family].loading.checkpoint, names)
    return names["model"]


def main(argv: list[str]) -> None:
    """Check that names and shapes are the base's, that all numbers are finite, and that training moved some."""
    family, folder, base = argv
    found, expected = (loaded(family, place).state_dict() for place in (folder, base))
    if {name: t.shape for name, t in found.items()} != {name: t.shape for name, t in expected.items()}:
        raise SystemExit("the export has other tensors than the checkpoint it started from")
    if not all(torch.isfinite(tensor).all() for tensor in found.values()):
        raise SystemExit("the export has numbers that are not finite")
    moved = sum(not torch.equal(tensor.float(), expected[name].float()) for name, tensor in found.items())
    if not moved:
        raise SystemExit("no tensor of the export differs from the checkpoint it started from")
    print(f"{len(found)} tensors, {moved} moved by training")


if __name__ == "__main__":
    main(sys.argv[1:])
