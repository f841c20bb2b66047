"""WISE: 1,000 prompts that need world knowledge to draw, in one or three JSON files (arXiv 2503.07265)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unigap.prompt_sets.rows import Row, as_truth, distinct, parse_json, read_text, refuse_url, text_field
from unigap.records import Prompt

FILES = ("cultural_common_sense.json", "spatio-temporal_reasoning.json", "natural_science.json")
LAST = {400: "culture", 567: "time", 700: "space", 800: "biology", 900: "physics", 1000: "chemistry"}
"""The category of the ids up to each number, as the published scores have it."""


def read_wise(path: str) -> list[Prompt]:
    """Read the prompts of a JSON file, or of the published files in a folder; their ids are the published numbers.

    The category is one of the six of the published scores. The truth is ``{"explanation", "subcategory"}``: what an
    image that is right must show. It has no list of claims, so every difficulty is ``"any"``.

    Raises:
        ValueError: The folder holds none of the files, a row is damaged, or an id is not of 1 to 1000.
    """
    refuse_url(path)
    folder = Path(path)
    files = [folder / name for name in FILES if (folder / name).is_file()] if folder.is_dir() else [folder]
    if not files:
        raise ValueError(f"prompts {path!r}: the folder holds none of {', '.join(FILES)}")
    return distinct((row for file in files for row in _prompts(file)), f"prompts {path!r}")


def _prompts(file: Path) -> Iterator[tuple[str, Prompt]]:
    for where, row in _rows(file):
        number = row.get("prompt_id")
        if type(number) is not int or not 1 <= number <= max(LAST):
            raise ValueError(f"{where}: 'prompt_id' must be a whole number from 1 to {max(LAST)}, got {number!r}")
        category = next(name for last, name in LAST.items() if number <= last)
        truth = {"explanation": text_field(row, "Explanation", where)}
        truth |= {"subcategory": text_field(row, "Subcategory", where)} if "Subcategory" in row else {}
        yield where, Prompt(f"{number:04d}", text_field(row, "Prompt", where), category, truth=as_truth(truth))


def _rows(file: Path) -> Iterator[Row]:
    named = f"prompts {str(file)!r}"
    rows = parse_json(read_text(file, (".json",)), named)
    if not isinstance(rows, list):
        raise ValueError(f"{named}: needs a list of objects with 'Prompt' and 'Explanation'; this is no WISE file")
    for number, row in enumerate(rows, 1):
        where = f"{named}, row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: needs an object with 'Prompt' and 'Explanation', got {type(row).__name__}")
        yield where, row
