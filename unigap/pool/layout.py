"""Names of the files and folders in a pool."""

from __future__ import annotations

import re
from pathlib import Path

from unigap.files.durable import MANIFEST, is_temporary
from unigap.records import DrawingFormat

HEAD = "head.json"
REFERENCES, ANNOTATIONS = "references", "annotations"
RECIPE = "recipe.json"
CANDIDATES_FILE, JUDGMENTS_FILE, PROMPTS_FILE = "candidates.parquet", "judgments.parquet", "prompts.parquet"
BEHAVIOUR_KEY = "behaviour"
"""Key of a round's recipe: the round stores each token's log-probability under the sampling recipe."""
LATENTS_FILE = "latents.npy"


def round_files(format: DrawingFormat | None) -> frozenset[str]:
    """Return the names of the files that the manifest of a round lists."""
    latents = {LATENTS_FILE} if format and format.is_latent else set()
    return frozenset({CANDIDATES_FILE, JUDGMENTS_FILE, PROMPTS_FILE, RECIPE, *latents})


_ROUND = re.compile(r"round-(\d{5,})(\.partial|\.sealing|)")


def round_folder(pool: Path, round: int, stage: str = "") -> Path:
    """Return the folder of a round: committed (``""``), being sampled (``.partial``) or being merged (``.sealing``)."""
    return pool / f"round-{round:05d}{stage}"


def find_rounds(pool: Path, stage: str = "") -> list[int]:
    """Return the numbers of the rounds of a pool that are in ``stage``, ascending."""
    found = [(_ROUND.fullmatch(path.name), path) for path in pool.iterdir() if path.is_dir()]
    numbers = [(int(match[1]), path) for match, path in found if match and match[2] == stage]
    return sorted(number for number, path in numbers if path == round_folder(pool, number, stage))


def is_begun(sidecar: Path) -> bool:
    """Whether a folder of annotations or references holds more than a killed write leaves.

    Raises:
        ValueError: It is not a folder.
    """
    if not sidecar.exists():
        return False
    if not sidecar.is_dir():
        raise ValueError(f"{sidecar} is not a folder, and {sidecar / MANIFEST} is missing; restore it")
    return any(not is_temporary(path.name) for path in sidecar.iterdir())
