"""Load prompts from a source: a world by name, a published set by name and path, or a user's file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unigap.console.mistakes import hint
from unigap.prompt_sets import READERS, read_prompt_file
from unigap.prompt_sets.rows import refuse_url
from unigap.records import Prompt
from unigap.world import find_world

ALSO_CALLED = {
    "improve": ("improve", "train"),
    "validation": ("validation", "val", "dev"),
    "test": ("test", "validation", "val"),
}
"""Names under which a set may have each split; the first one found is taken."""


def load_prompts(source: str, split: str, per_cell: int | None = None) -> list[Prompt]:
    """Load the prompts of one split of a source.

    Args:
        source: A world by name, e.g. ``shapes``; ``NAME:PATH`` for a published set (names in
            `unigap.prompt_sets.READERS`); or a ``.txt`` file (one prompt a line) or ``.jsonl`` file (objects with
            ``text`` and optionally ``id``, ``category``, ``difficulty``, ``split``, ``truth``).
        split: Name of the split, or an alias in `ALSO_CALLED`. Prompts without a split belong to every split.
        per_cell: Most prompts for each (category, difficulty); None takes all.

    Raises:
        ValueError: The set is unknown; or its file is missing, is not UTF-8, holds a damaged row (named by its line) or
            no prompt.
    """
    world = find_world(source)
    if world:
        return world.prompts(split, per_cell)
    if per_cell is not None and per_cell < 1:
        raise ValueError(f"per_cell must be >= 1, got {per_cell}")
    rows = of_split(read_prompts(source), split, source)
    return list(_first_of_each_cell(rows, per_cell or len(rows)))


def read_prompts(source: str) -> list[Prompt]:
    """Load the prompts of all splits of a source; see `load_prompts`."""
    world = find_world(source)
    if world:
        return [prompt for split in world.splits for prompt in world.prompts(split, None)]
    name, colon, path = source.partition(":")
    if name in READERS and colon:
        return READERS[name](path)
    refuse_url(source)
    if colon and not Path(source).exists():
        raise ValueError(f"unknown prompt set {name[:60]!r}{hint(name, READERS)}")
    return read_prompt_file(source)


def of_split(prompts: Iterable[Prompt], split: str, source: str) -> list[Prompt]:
    """Return the prompts of a split, and those without a split.

    Raises:
        ValueError: There is no such prompt.
    """
    found = list(prompts)
    named = list(dict.fromkeys(prompt.split for prompt in found if prompt.split))
    chosen = next((name for name in ALSO_CALLED.get(split, (split,)) if name in named), split)
    rows = [prompt for prompt in found if prompt.split in ("", chosen)]
    if not rows:
        raise ValueError(f"prompts {source!r}: no prompt in split {split!r}; it has: {', '.join(named)}")
    return rows


def _first_of_each_cell(prompts: Iterable[Prompt], count: int) -> Iterable[Prompt]:
    taken: dict[tuple[str, str], int] = {}
    for prompt in prompts:
        cell = (prompt.category, prompt.difficulty)
        taken[cell] = taken.get(cell, 0) + 1
        if taken[cell] <= count:
            yield prompt
