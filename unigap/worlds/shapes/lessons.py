"""Pretraining data of the embedded models: rendered scenes with captions and true or false statements about them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from unigap.worlds.shapes.grammar import (
    CATEGORIES,
    COLORS,
    DIFFICULTIES,
    MAX_OBJECTS,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    Thing,
    parse,
)
from unigap.worlds.shapes.prompt_sets import descriptions, split_of
from unigap.worlds.shapes.scenes import GRID, JITTER, KINDS, Placed, describes, imagine, render

STATEMENTS = 4


@dataclass(frozen=True)
class Lesson:
    """One scene with its caption and statements about it.

    Attributes:
        caption: The description that the scene was sampled for.
        scene: The objects in the image; after a slip they no longer match the caption.
        statements: Descriptions, each with its truth for this scene.
    """

    caption: Description
    scene: tuple[Placed, ...]
    statements: tuple[tuple[Description, bool], ...]

    @property
    def faithful(self) -> bool:
        """Whether the caption is true of the scene."""
        return describes(self.caption, self.scene)

    @property
    def captions(self) -> list[Description]:
        """Prompts for which this image is a training target: true, and naming objects in reading order."""
        ordered = sorted(self.scene, key=lambda placed: (placed.row, placed.col))
        wordings = {d for d, true in self.statements if true}
        if not self.caption.relation:
            wordings = {
                d for d in wordings if all(thing.fits(p.thing) for thing, p in zip(d.things, ordered, strict=True))
            }
        return sorted(wordings, key=lambda d: d.text)


def make_lesson(rng: random.Random, split: str = "pretrain", slip_rate: float = 0.35) -> Lesson:
    """Sample a lesson whose captions and statements all come from one split.

    Args:
        rng: Random generator.
        split: The split.
        slip_rate: Probability of one mistake in the scene.
    """
    cell = descriptions(rng.choices(CATEGORIES)[0], rng.choice(DIFFICULTIES), split)
    caption = rng.choice(cell)
    scene = imagine(caption, rng)
    if rng.random() < slip_rate:
        scene = slip(scene, rng)
    statements = [caption, _in_split(lambda: reword(caption, rng), caption, split)]
    while len(statements) < STATEMENTS:
        statements.append(_in_split(lambda: twist(caption, rng), rng.choice(cell), split))
    return Lesson(caption, scene, tuple((d, describes(d, scene)) for d in statements))


def _in_split(make: Callable[[], Description], fallback: Description, split: str, tries: int = 8) -> Description:
    """Return the first description made that is in the split: statements must not leak prompts of another split."""
    for _ in range(tries):
        made = make()
        if split_of(made) == split:
            return made
    return fallback


def reword(description: Description, rng: random.Random) -> Description:
    """Return a description that this one implies: mirrored, reordered, or with one attribute left open."""
    if description.relation and rng.random() < 0.5:
        return Description(description.groups[::-1], RELATIONS[description.relation])
    groups = list(description.groups)
    if len(groups) > 1 and not description.relation and rng.random() < 0.5:
        rng.shuffle(groups)
        return Description(tuple(groups))
    i = rng.randrange(len(groups))
    count, thing = groups[i]
    groups[i] = (count, replace(thing, **{rng.choice(("color", "size")): ""}))
    return replace(description, groups=tuple(groups))


def twist(description: Description, rng: random.Random) -> Description:
    """Return a hard negative: one attribute, count or relation changed. It may still be true of a scene by chance."""
    groups = list(description.groups)
    ways = ["thing"] * 2
    ways += ["relation"] * 2 if description.relation else ["count"] * (2 if len(groups) == 1 else 1)
    way = rng.choice(ways)
    if way == "relation":
        return replace(description, relation=rng.choice([r for r in RELATIONS if r != description.relation]))
    i = rng.randrange(len(groups))
    count, thing = groups[i]
    if way == "count" and count + MAX_OBJECTS - len(description.things) > 1:
        most = MAX_OBJECTS - sum(n for n, _ in groups) + count
        options = [n for n in range(1, most + 1) if n != count]
        groups[i] = (rng.choice(sorted(options, key=lambda n: abs(n - count))[:2]), thing)
    else:
        groups[i] = (count, _altered(thing, rng))
    return replace(description, groups=tuple(groups))


def wrong_caption(caption: Description, scene: Sequence[Placed], rng: random.Random, tries: int = 64) -> Description:
    """Return the caption with one attribute, count or relation changed, so that it is false of the scene.

    Captions of images on the web are wrong in this way. The result is in the pretraining split; it is the caption
    itself in the rare case that no wrong caption is found.
    """
    for _ in range(tries):
        wrong = twist(caption, rng)
        if split_of(wrong) == "pretrain" and not describes(wrong, scene):
            return wrong
    return caption


def alternatives(text: str, count: int, seed: int) -> list[str]:
    """Return a prompt and ``count - 1`` different hard negatives of it."""
    rng = random.Random(f"{seed}/{text}")
    found = [text]
    described = parse(text)
    while len(found) < count:
        other = twist(described, rng)
        if other.text in found:
            described = twist(described, rng)  # few neighbours are left: go on from one of them
        else:
            found.append(other.text)
    return found


def _altered(thing: Thing, rng: random.Random) -> Thing:
    values = {"shape": SHAPES, "color": COLORS, "size": SIZES}
    name = rng.choice([name for name in values if getattr(thing, name)])
    return replace(thing, **{name: rng.choice([v for v in values[name] if v != getattr(thing, name)])})


def slip(scene: Sequence[Placed], rng: random.Random) -> tuple[Placed, ...]:
    """Return the scene with one mistake that a weak generator makes: an object altered, moved, added or lost."""
    placed = list(scene)
    free = [cell for cell in range(GRID * GRID) if cell not in {p.row * GRID + p.col for p in scene}]
    row, col = divmod(rng.choice(free), GRID)
    way = rng.choice(["alter", "alter", "move", "add"] + (["lose"] if len(placed) > 1 else []))
    i = rng.randrange(len(placed))
    if way == "alter":
        placed[i] = replace(placed[i], thing=_altered(placed[i].thing, rng))
    elif way == "move":
        placed[i] = replace(placed[i], row=row, col=col)
    elif way == "add":
        like = rng.choice([placed[i].thing, rng.choice(KINDS)])
        placed.append(Placed(like, row, col, rng.randrange(JITTER), rng.randrange(JITTER)))
    else:
        del placed[i]
    return tuple(placed)


def crowd(rng: random.Random) -> tuple[Placed, ...]:
    """Sample a crowded scene, for training the image tokenizer."""
    cells = rng.sample(range(GRID * GRID), rng.randint(1, 8))
    return tuple(
        Placed(rng.choice(KINDS), cell // GRID, cell % GRID, rng.randrange(JITTER), rng.randrange(JITTER))
        for cell in cells
    )


def cell_labels(scene: Sequence[Placed]) -> torch.Tensor:
    """Return (kind, dy, dx) of each cell, int64 (16, 3); kind 0 is an empty cell."""
    cells = torch.zeros(GRID * GRID, 3, dtype=torch.long)
    for placed in scene:
        cells[placed.row * GRID + placed.col] = torch.tensor([KINDS.index(placed.thing) + 1, placed.dy, placed.dx])
    return cells


def pictures(scenes: Sequence[Sequence[Placed]]) -> torch.Tensor:
    """Render scenes, float32 (B, 3, 32, 32) in [-1, 1]."""
    return torch.stack([render(scene) for scene in scenes])
