"""All prompts of the embedded world and their disjoint splits; a hash of a prompt's meaning chooses its split."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator

from unigap.records import Prompt
from unigap.worlds.shapes.grammar import CATEGORIES, COLORS, DIFFICULTIES, RELATIONS, SHAPES, SIZES, Description, Thing

SPLITS = {"pretrain": 0.50, "improve": 0.25, "validation": 0.05, "test": 0.20}
MAX_PROMPTS_PER_CELL = 2400


def split_of(description: Description) -> str:
    """Return the split of a description; all wordings of one meaning share a split."""
    point = _digest("split", description.key) / 2**64
    for name, share in SPLITS.items():
        if point < share:
            return name
        point -= share
    return name


def _digest(salt: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:8])


def _colors(difficulty: str) -> Iterator[Description]:
    """Yield one, two or three objects of different colours."""
    k = DIFFICULTIES.index(difficulty) + 1
    for colors in itertools.combinations(COLORS, k):
        for shapes in itertools.product(SHAPES, repeat=k):
            yield Description(tuple((1, Thing(s, c)) for s, c in zip(shapes, colors, strict=True)))


def _shapes(difficulty: str) -> Iterator[Description]:
    """Yield two, three or four shapes that share their other attributes."""
    k = DIFFICULTIES.index(difficulty) + 2
    for shapes in itertools.combinations(SHAPES, k):
        for color, size in itertools.product(("", *COLORS), ("", *SIZES)):
            yield Description(tuple((1, Thing(shape, color, size)) for shape in shapes))


def _sizes(difficulty: str) -> Iterator[Description]:
    """Yield one, two or three objects with their sizes; of more than one object, both sizes occur."""
    k = DIFFICULTIES.index(difficulty) + 1
    colors = ("", *COLORS) if k < 3 else ("",)
    kinds = [Thing(shape, color, size) for shape in SHAPES for color in colors for size in SIZES]
    for things in itertools.permutations(kinds, k):
        if k == 1 or len({thing.size for thing in things}) == 2:
            yield Description(tuple((1, thing) for thing in things))


def _counts(difficulty: str) -> Iterator[Description]:
    """Yield two, three to four, or five to six objects of one kind."""
    for count in {"easy": (2,), "medium": (3, 4), "hard": (5, 6)}[difficulty]:
        for shape, color, size in itertools.product(SHAPES, ("", *COLORS), ("", *SIZES)):
            yield Description(((count, Thing(shape, color, size)),))


def _spatial(difficulty: str) -> Iterator[Description]:
    """Yield two objects in a relation: shapes alone, with colours, or with colours and sizes."""
    colors = ("",) if difficulty == "easy" else COLORS
    sizes = SIZES if difficulty == "hard" else ("",)
    kinds = [Thing(shape, color, size) for shape in SHAPES for color in colors for size in sizes]
    for a, b in itertools.permutations(kinds, 2):
        for relation in RELATIONS:
            yield Description(((1, a), (1, b)), relation)


_MAKERS = dict(zip(CATEGORIES, (_colors, _shapes, _sizes, _counts, _spatial), strict=True))


@functools.cache
def descriptions(category: str, difficulty: str, split: str) -> tuple[Description, ...]:
    """Return all descriptions of a cell that are in a split, in a fixed shuffled order.

    The splits together hold at most ``MAX_PROMPTS_PER_CELL`` descriptions of a cell.
    """
    shuffled = sorted(_MAKERS[category](difficulty), key=lambda d: _digest("order", d.text))
    return tuple(d for d in shuffled[:MAX_PROMPTS_PER_CELL] if split_of(d) == split)


def prompts(split: str, per_cell: int | None = None) -> list[Prompt]:
    """Return the prompts of a split, ordered by category and difficulty.

    Args:
        split: One of ``pretrain``, ``improve``, ``validation``, ``test``.
        per_cell: Largest number for each (category, difficulty), >= 1; ``None`` takes all.

    Raises:
        ValueError: The split is unknown, or ``per_cell`` is below 1.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of the embedded world; choose one of: {', '.join(SPLITS)}")
    if per_cell is not None and per_cell < 1:
        raise ValueError(f"per_cell must be >= 1, got {per_cell}")
    return [
        Prompt(d.text.replace(",", "").replace(" ", "-"), d.text, category, difficulty, split)
        for category, difficulty in itertools.product(CATEGORIES, DIFFICULTIES)
        for d in descriptions(category, difficulty, split)[:per_cell]
    ]
