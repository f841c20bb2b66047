"""Scenes and their images: objects on a 4 x 4 grid, rendered at 32 x 32 with anti-aliasing and sub-cell jitter."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unigap.worlds.shapes.grammar import COLORS, SHAPES, SIZES, Description, Thing

GRID = 4
CELL = 8
IMAGE_SIZE = GRID * CELL
JITTER = 2  # positions along each axis
_RGB = {
    "red": (0.87, 0.14, 0.14),
    "green": (0.10, 0.60, 0.22),
    "blue": (0.12, 0.32, 0.88),
    "yellow": (0.97, 0.74, 0.04),
    "purple": (0.60, 0.18, 0.74),
    "black": (0.08, 0.08, 0.08),
}
_BACKGROUND = (0.95, 0.95, 0.93)
_DIAMETER = {"small": 5, "large": 7}
_INSIDE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # x, y in [-1, 1], y points down
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "triangle": lambda x, y: (abs(y) <= 1) & (abs(x) <= (y + 1) / 2),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 1),
    "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.3),
}
KINDS = tuple(Thing(shape, color, size) for shape, color, size in itertools.product(SHAPES, COLORS, SIZES))


@dataclass(frozen=True)
class Placed:
    """An object in a cell: ``thing`` is fully specified, ``row`` and ``col`` are in [0, 4), the jitter is in {0, 1}."""

    thing: Thing
    row: int
    col: int
    dy: int = 0
    dx: int = 0


@functools.cache
def _coverage(shape: str, size: str, dy: int, dx: int) -> np.ndarray:
    """Return the share of each pixel that the object covers, shape (8, 8), in [0, 1]."""
    fine = 8
    diameter = _DIAMETER[size]
    margin = (CELL - JITTER + 1 - diameter) // 2
    axis = (np.arange(CELL * fine) + 0.5) / fine
    y = (axis - margin - dy) * 2 / diameter - 1
    x = (axis - margin - dx) * 2 / diameter - 1
    inside = _INSIDE[shape](x[None, :], y[:, None]) & (abs(x[None, :]) <= 1) & (abs(y[:, None]) <= 1)
    return inside.reshape(CELL, fine, CELL, fine).mean((1, 3))


@functools.cache
def cell_picture(thing: Thing | None, dy: int = 0, dx: int = 0) -> np.ndarray:
    """Render one cell, float32 (3, 8, 8) in [-1, 1]; ``None`` is the empty cell."""
    background = np.array(_BACKGROUND)[:, None, None]
    if thing is None:
        picture = np.broadcast_to(background, (3, CELL, CELL))
    else:
        cover = _coverage(thing.shape, thing.size, dy, dx)
        picture = background * (1 - cover) + np.array(_RGB[thing.color])[:, None, None] * cover
    return (picture * 2 - 1).astype(np.float32)


def render(scene: Sequence[Placed]) -> torch.Tensor:
    """Render a scene, float32 (3, 32, 32) in [-1, 1]."""
    image = np.tile(cell_picture(None), (1, GRID, GRID))
    for placed in scene:
        top, left = placed.row * CELL, placed.col * CELL
        image[:, top : top + CELL, left : left + CELL] = cell_picture(placed.thing, placed.dy, placed.dx)
    return torch.from_numpy(image)


def holds(relation: str, a: Placed, b: Placed) -> bool:
    """Whether ``a`` is ``relation`` ``b``: the offset along the axis of the relation must be the larger one."""
    down, right = a.row - b.row, a.col - b.col
    along, across = (right, down) if relation in ("left of", "right of") else (down, right)
    return (along < 0 if relation in ("left of", "above") else along > 0) and abs(along) > abs(across)


def imagine(description: Description, rng: random.Random) -> tuple[Placed, ...]:
    """Sample a scene that matches the description.

    Open attributes are sampled uniformly. Without a relation, the objects are placed in reading order as named.
    """
    things = [
        Thing(thing.shape, thing.color or rng.choice(COLORS), thing.size or rng.choice(SIZES))
        for thing in description.things
    ]
    while True:
        cells = rng.sample(range(GRID * GRID), len(things))
        if not description.relation:
            cells.sort()
        scene = tuple(
            Placed(thing, cell // GRID, cell % GRID, rng.randrange(JITTER), rng.randrange(JITTER))
            for thing, cell in zip(things, cells, strict=True)
        )
        if not description.relation or holds(description.relation, *scene):
            return scene


def describes(description: Description, scene: Sequence[Placed]) -> bool:
    """Whether the scene has exactly the described objects, in the described relation."""
    wanted = description.things
    if len(wanted) != len(scene):
        return False
    if description.relation:
        pairs = itertools.permutations(scene, 2)
        return any(
            wanted[0].fits(a.thing) and wanted[1].fits(b.thing) and holds(description.relation, a, b) for a, b in pairs
        )
    return _assignable(wanted, [placed.thing for placed in scene])


def _assignable(wanted: Sequence[Thing], seen: Sequence[Thing]) -> bool:
    """Whether a perfect matching assigns a fitting object to each wanted kind."""
    if not wanted:
        return True
    return any(
        wanted[0].fits(thing) and _assignable(wanted[1:], [*seen[:i], *seen[i + 1 :]]) for i, thing in enumerate(seen)
    )
