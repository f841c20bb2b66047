"""The language of the embedded world: words to meaning and back."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_truths import DESCRIPTIONS, THINGS, meaning

from unigap.worlds.shapes.grammar import (
    CATEGORIES,
    COLORS,
    COUNTS,
    DIFFICULTIES,
    MAX_OBJECTS,
    RELATIONS,
    SIZES,
    WORDS,
    Description,
    Thing,
    parse,
)
from unigap.worlds.shapes.prompt_sets import SPLITS, descriptions
from unigap.worlds.shapes.scenes import KINDS

PATTERNS = [Thing("ring", color, size) for color in ("", *COLORS) for size in ("", *SIZES)]
OBJECTS = [kind for kind in KINDS if kind.shape == "ring"]
FITS = np.array([[pattern.fits(thing) for thing in OBJECTS] for pattern in PATTERNS])


# Words to meaning and back


def test_every_prompt_of_every_split_reads_back() -> None:
    for category, difficulty, split in itertools.product(CATEGORIES, DIFFICULTIES, SPLITS):
        for description in descriptions(category, difficulty, split):
            assert parse(description.text) == description


@given(DESCRIPTIONS)
def test_whatever_can_be_said_reads_back(description: Description) -> None:
    assert parse(description.text) == description
    assert set(description.text.replace(",", " ,").split()) <= set(WORDS)


@pytest.mark.parametrize(
    ("text", "groups", "relation"),
    [
        ("a circle", ((1, Thing("circle")),), ""),
        ("two crosses", ((2, Thing("cross")),), ""),
        (
            "a small red circle left of a large blue square",
            ((1, Thing("circle", "red", "small")), (1, Thing("square", "blue", "large"))),
            "left of",
        ),
        (
            "three green triangles, a ring and two large squares",
            ((3, Thing("triangle", "green")), (1, Thing("ring")), (2, Thing("square", "", "large"))),
            "",
        ),
    ],
)
def test_a_sentence_means_what_it_says(text: str, groups: tuple[tuple[int, Thing], ...], relation: str) -> None:
    assert parse(text) == Description(groups, relation)
    assert Description(groups, relation).text == text


@pytest.mark.parametrize(
    "text",
    [
        "  A Small\tred  circle,\na ring AND two squares. ",
        "a small red circle, a ring, and two squares",
        "a small red circle, a ring, two squares",
        "a small red circle and a ring and two squares",
        "a small red circle, a ring and two squares .",
    ],
)
def test_a_loose_hand_is_read(text: str) -> None:
    assert parse(text).text == "a small red circle, a ring and two squares"


# Meaning


@given(DESCRIPTIONS, st.randoms(use_true_random=False))
def test_key_is_one_wording_of_the_meaning(description: Description, rng: random.Random) -> None:
    spoken = parse(description.key)
    assert meaning(spoken) == meaning(description)
    assert spoken.key == description.key
    if description.relation:
        same = Description(description.groups[::-1], RELATIONS[description.relation])
    else:
        same = Description(tuple(rng.sample(description.groups, len(description.groups))))
    assert same.key == description.key


def test_key_is_equal_for_the_same_objects_counted_together_or_apart() -> None:
    assert parse("a red ring and a red ring").key == parse("two red rings").key
    assert parse("a ring, a circle and two rings").key == parse("three rings and a circle").key
    assert parse("a ring and a red ring").key != parse("two red rings").key


def test_key_is_equal_exactly_when_two_objects_are_described_alike() -> None:
    """All sentences about two rings, told apart by the scenes they are true of."""
    kinds_A, kinds_B, way = np.indices((len(OBJECTS), len(OBJECTS), 5)).reshape(3, -1)  # way 4: on the diagonal
    opposite = {"left of": 0, "right of": 1, "above": 2, "below": 3}
    told: list[tuple[Description, np.ndarray]] = []
    for (i, first), (j, second) in itertools.product(enumerate(PATTERNS), repeat=2):
        forth, back = FITS[i, kinds_A] & FITS[j, kinds_B], FITS[j, kinds_A] & FITS[i, kinds_B]
        groups = ((1, first), (1, second))
        told.append((Description(groups), forth | back))
        if i == j:
            told.append((Description(((2, first),)), forth | back))
        for relation, place in opposite.items():
            mirrored = opposite[RELATIONS[relation]]
            told.append((Description(groups, relation), (forth & (way == place)) | (back & (way == mirrored))))
    _check_keys(told)


def test_key_is_equal_exactly_when_three_objects_are_described_alike() -> None:
    """All sentences about three rings, told apart by the scenes they are true of."""
    scenes = np.array(list(itertools.combinations_with_replacement(range(len(OBJECTS)), 3)))
    told: list[tuple[Description, np.ndarray]] = []
    for trio in itertools.product(range(len(PATTERNS)), repeat=3):
        truth = np.any([np.all(FITS[trio, scenes[:, order]], 1) for order in itertools.permutations(range(3))], 0)
        first, second, third = (PATTERNS[i] for i in trio)
        told.append((Description(((1, first), (1, second), (1, third))), truth))
        if first == second:
            told.append((Description(((2, first), (1, third))), truth))
            told.append((Description(((1, third), (2, first))), truth))
        if first == second == third:
            told.append((Description(((3, first),)), truth))
    _check_keys(told)


def _check_keys(told: list[tuple[Description, np.ndarray]]) -> None:
    """Keys, brute-force truths and ``meaning`` must sort the sentences into the same heaps."""
    labels = [(description.key, np.packbits(truth).tobytes(), meaning(description)) for description, truth in told]
    heaps = {len(set(column)) for column in zip(*labels, strict=True)} | {len(set(labels))}
    assert len(heaps) == 1, heaps


@given(THINGS, THINGS)
def test_open_attributes_fit_anything(kind: Thing, other: Thing) -> None:
    full = Thing(other.shape, other.color or "red", other.size or "small")
    assert Thing(full.shape).fits(full)
    assert full.fits(full)
    assert kind.fits(full) == (
        kind.shape == full.shape and kind.color in ("", full.color) and kind.size in ("", full.size)
    )


# Mistakes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a reed circle", "did you mean 'red'"),
        ("a small red cirle", "did you mean 'circle'"),
        ("two sqares", "did you mean 'squares'"),
        ("a circle bellow a square", "did you mean 'below'"),
        ("a dog", "no word 'dog'"),
        ("xyzzy", "it knows: a two"),
        ("a circle " + "w" * 500, "no word 'www"),
        ("", "cannot read ''"),
        (" . ", "cannot read ''"),
        ("circle", "cannot read 'circle'"),
        ("a red small circle", "cannot read 'a red small circle'"),
        ("a circle and", "cannot read"),
        ("a circle and and a square", "cannot read 'and a square'"),
        ("a circle left a square", "cannot read"),
        ("a circle,a square", "cannot read"),
        ("two circle", "singular and plural"),
        ("a circles", "singular and plural"),
        ("two circles left of a square", "exactly two single objects"),
        ("a circle left of a square left of a ring", "exactly two single objects"),
        ("a circle left of a square above a ring", "cannot read 'a square above a ring'"),
        ("a circle above a square and a ring", "cannot read 'a square and a ring'"),
        ("six circles and a ring", "more than 6 objects"),
        (" and ".join(["a ring"] * 500), "more than 6 objects"),
    ],
)
def test_a_bad_prompt_gives_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    line = str(caught.value)
    assert says in line
    assert line.startswith("prompt ")
    assert "\n" not in line
    assert len(line) < 400


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from([*WORDS, *COUNTS, *RELATIONS, "left of", "a ring", "\n", ".", "an"]), max_size=12).map(
            " ".join
        ),
    )
)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        description = parse(text)
    except ValueError as problem:
        assert "\n" not in str(problem)
    else:
        assert 1 <= len(description.things) <= MAX_OBJECTS
        assert parse(description.text) == description
