"""Scenes of the embedded world: their pictures and what is true of them."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_truths import DESCRIPTIONS, SCENES, is_true

from unigap.worlds.shapes.grammar import COLORS, RELATIONS, SHAPES, SIZES, Description, Thing, parse
from unigap.worlds.shapes.lessons import slip
from unigap.worlds.shapes.scenes import (
    CELL,
    GRID,
    IMAGE_SIZE,
    JITTER,
    KINDS,
    Placed,
    cell_picture,
    describes,
    holds,
    imagine,
    render,
)

CELLS = list(itertools.product(range(GRID), repeat=2))
SEEDS = st.integers(0, 2**32)


# Pictures


def test_there_is_one_kind_for_each_shape_color_and_size() -> None:
    assert len(set(KINDS)) == len(KINDS) == len(SHAPES) * len(COLORS) * len(SIZES)


@given(SCENES, SEEDS)
@settings(max_examples=50)
def test_a_picture_holds_each_object_in_its_cell_and_nothing_else(scene: tuple[Placed, ...], seed: int) -> None:
    image = render(scene)
    assert image.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    assert image.dtype == torch.float32
    assert image.abs().max() <= 1
    at = {(placed.row, placed.col): placed for placed in scene}
    for row, col in CELLS:
        cell = image[:, row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL]
        placed = at.get((row, col))
        expected = cell_picture(placed.thing, placed.dy, placed.dx) if placed else cell_picture(None)
        assert torch.equal(cell, torch.from_numpy(np.ascontiguousarray(expected)))
    assert torch.equal(render(random.Random(seed).sample(scene, len(scene))), image)


def test_a_picture_does_not_share_memory_with_the_next() -> None:
    scene = [Placed(KINDS[0], 0, 0)]
    before = render(scene)
    render(scene).zero_()
    assert torch.equal(render(scene), before)


def test_no_two_kinds_look_alike_at_any_jitter() -> None:
    pictures: list[tuple[Thing | None, np.ndarray]] = [(None, cell_picture(None))]
    pictures += [(kind, cell_picture(kind, dy, dx)) for kind in KINDS for dy in range(JITTER) for dx in range(JITTER)]
    for (kind, one), (other, two) in itertools.combinations(pictures, 2):
        assert np.abs(one - two).max() > 0.1, (kind, other)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join((kind.size, kind.color, kind.shape)))
def test_jitter_moves_the_object_by_one_pixel_and_cuts_nothing(kind: Thing) -> None:
    still, empty = cell_picture(kind), cell_picture(None)
    np.testing.assert_allclose(cell_picture(kind, 1, 0)[:, 1:], still[:, :-1], atol=1e-6)
    np.testing.assert_allclose(cell_picture(kind, 0, 1)[:, :, 1:], still[:, :, :-1], atol=1e-6)
    np.testing.assert_array_equal(still[:, -1], empty[:, -1])
    np.testing.assert_array_equal(still[:, :, -1], empty[:, :, -1])


def test_large_objects_cover_more_than_small_ones() -> None:
    empty = cell_picture(None)
    for shape, color in itertools.product(SHAPES, COLORS):
        small, large = (np.abs(cell_picture(Thing(shape, color, size)) - empty).sum() for size in SIZES)
        assert large > 1.5 * small


# Relations


def test_holds_is_mirrored_and_decided_by_the_longer_offset() -> None:
    ring = KINDS[0]
    for (row, col), (other_row, other_col) in itertools.permutations(CELLS, 2):
        a, b = Placed(ring, row, col), Placed(ring, other_row, other_col)
        true = [relation for relation in RELATIONS if holds(relation, a, b)]
        assert [RELATIONS[relation] for relation in true] == [r for r in RELATIONS.values() if holds(r, b, a)]
        across, down = col - other_col, row - other_row
        if abs(across) == abs(down):
            assert true == []
        elif abs(across) > abs(down):
            assert true == ["left of" if across < 0 else "right of"]
        else:
            assert true == ["above" if down < 0 else "below"]


# Truth


@given(DESCRIPTIONS, SEEDS)
def test_imagined_scenes_are_true_and_stand_as_named(description: Description, seed: int) -> None:
    scene = imagine(description, random.Random(seed))
    assert is_true(description, scene)
    assert describes(description, scene)
    assert all(thing.fits(placed.thing) for thing, placed in zip(description.things, scene, strict=True))
    assert all(placed.thing in KINDS for placed in scene)
    places = [(placed.row, placed.col) for placed in scene]
    assert len(set(places)) == len(places)
    if not description.relation:
        assert places == sorted(places)
    assert imagine(description, random.Random(seed)) == scene


def test_imagination_reaches_every_place_jitter_and_open_attribute() -> None:
    rng = random.Random(0)
    seen = [placed for _ in range(400) for placed in imagine(parse("two rings"), rng)]
    assert {(placed.row, placed.col) for placed in seen} == set(CELLS)
    assert len({(placed.dy, placed.dx) for placed in seen}) == JITTER**2
    assert {placed.thing for placed in seen} == {kind for kind in KINDS if kind.shape == "ring"}


@given(DESCRIPTIONS, SCENES)
def test_describes_agrees_with_trying_every_naming(description: Description, scene: tuple[Placed, ...]) -> None:
    assert describes(description, scene) == is_true(description, scene)


@given(DESCRIPTIONS, DESCRIPTIONS, SEEDS)
@settings(max_examples=200)
def test_describes_agrees_on_near_misses(description: Description, other: Description, seed: int) -> None:
    rng = random.Random(seed)
    slipped = slip(imagine(description, rng), rng)
    for scene in (slipped, slip(slipped, rng) if len(slipped) > 1 else slipped, imagine(other, rng)):
        truth = is_true(description, scene)
        assert describes(description, scene) == truth
        assert describes(description, rng.sample(scene, len(scene))) == truth


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("a ring and a red ring", True),
        ("a red ring and a ring", True),
        ("a red ring and a small ring", True),
        ("two rings", True),
        ("two small rings", False),
        ("a ring", False),
        ("a ring and two rings", False),
        ("a red ring left of a ring", True),
        ("a ring right of a large ring", True),
        ("a small ring left of a ring", False),
        ("a ring above a ring", False),
    ],
)
def test_an_example_by_hand(text: str, truth: bool) -> None:
    scene = [Placed(Thing("ring", "red", "large"), 1, 0), Placed(Thing("ring", "blue", "small"), 2, 3)]
    assert describes(parse(text), scene) is truth
    assert describes(parse(text), scene[::-1]) is truth


def test_an_empty_scene_shows_nothing() -> None:
    assert not describes(parse("a ring"), [])
    assert not describes(parse("a ring above a cross"), [])
