"""Where prompts come from: a world by name, a benchmark by name and path, or a file of the user's."""

from __future__ import annotations

import unicodedata
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
"""What a set may call the split that is asked for; the first name it has is taken."""


def load_prompts(source: str, split: str, per_cell: int | None = None) -> list[Prompt]:
    """The prompts of one split of a source.

    Args:
        source: A world by its name, as ``shapes``; ``NAME:PATH`` for a published set (the names are in
            `unigap.prompt_sets.READERS`); or a ``.txt`` (one prompt a line) or ``.jsonl`` file (objects with ``text``
            and optionally ``id``, ``category``, ``difficulty``, ``split``, ``truth``).
        split: Part of the set, by its own name or by what `ALSO_CALLED` says; prompts that name no split belong to
            every one.
        per_cell: At most this many for each (category, difficulty); ``None`` takes all.

    Raises:
        ValueError: When the set is unknown, or its file is missing, is not UTF-8, holds a damaged row (named by its
            line) or no prompt.
    """
    world = find_world(source)
    if world:
        return world.prompts(split, per_cell)
    if per_cell is not None and per_cell < 1:
        raise ValueError(f"per_cell must be >= 1, got {per_cell}")
    rows = of_split(read_prompts(source), split, source)
    return list(_first_of_each_cell(rows, per_cell or len(rows)))


def read_prompts(source: str) -> list[Prompt]:
    """The prompts of every split of a source; see `load_prompts`."""
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
    """The prompts of a split, and those that name none.

    Raises:
        ValueError: When there is no prompt.
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


def normalised(text: str) -> str:
    """The form in which prompts are compared.

    Case, white space, a final full stop, invisible characters and the way a character is composed do not count
    (Unicode's compatibility form NFKC, case-folded).

    >>> normalised("A  cafe\u0301.") == normalised("a caf\u00e9")
    True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    return " ".join(visible.split()).rstrip(".").strip()


def prompt_numbers(prompts: Iterable[Prompt]) -> list[int]:
    """A number from 0 for each prompt; two with the same normalised text have the same, whatever their ids.

    A bootstrap resamples these numbers: the lines of one prompt are no independent samples.
    """
    numbers: dict[str, int] = {}
    return [numbers.setdefault(normalised(prompt.text), len(numbers)) for prompt in prompts]


def check_no_overlap(train: Iterable[Prompt], held_out: Iterable[Prompt]) -> None:
    """Makes sure nothing that is evaluated on is trained on.

    Raises:
        ValueError: Names the first prompt that occurs on both sides, and what to do: name other prompts to evaluate on
            where nothing else is left to train on, else drop the shared ones.
    """
    seen = {normalised(prompt.text) for prompt in train}
    found = list(held_out)
    shared = [prompt.text for prompt in found if normalised(prompt.text) in seen]
    if not shared:
        return
    left = seen - {normalised(text) for text in shared}
    remedy = (
        "drop them with: unigap prompts audit TRAIN EVAL --out FILE"
        if left
        else "nothing else is trained on, so name other prompts as data.eval_prompts"
    )
    raise ValueError(f"{len(shared)} evaluation prompts are also trained on, first {shared[0][:60]!r}; {remedy}")
