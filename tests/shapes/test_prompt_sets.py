"""The prompt splits: disjoint by meaning, well filled, true to their names, and the same for ever."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Hashable

import pytest
from hypothesis import given
from plain_truths import DESCRIPTIONS, meaning

from unigap.records import Prompt
from unigap.worlds.shapes.grammar import CATEGORIES, DIFFICULTIES, RELATIONS, SIZES, Description, parse
from unigap.worlds.shapes.prompt_sets import MAX_PROMPTS_PER_CELL, SPLITS, descriptions, prompts, split_of

CELLS = list(itertools.product(CATEGORIES, DIFFICULTIES))
EVERY = [prompt for split in SPLITS for prompt in prompts(split)]


# Splits


def test_no_meaning_is_in_two_splits() -> None:
    homes: defaultdict[Hashable, set[str]] = defaultdict(set)
    for prompt in EVERY:
        homes[meaning(parse(prompt.text))].add(prompt.split)
    assert {len(splits) for splits in homes.values()} == {1}


def test_prompts_know_their_split() -> None:
    assert all(split_of(parse(prompt.text)) == prompt.split for prompt in EVERY)


@given(DESCRIPTIONS)
def test_every_wording_of_a_meaning_shares_its_split(description: Description) -> None:
    split = split_of(description)
    assert split in SPLITS
    if description.relation:
        assert split_of(Description(description.groups[::-1], RELATIONS[description.relation])) == split
    else:
        apart = tuple((1, thing) for thing in reversed(description.things))
        assert split_of(Description(apart)) == split


def test_shares_are_as_announced() -> None:
    meanings = {meaning(parse(prompt.text)): prompt.split for prompt in EVERY}
    counts = Counter(meanings.values())
    assert sum(SPLITS.values()) == pytest.approx(1)
    for split, share in SPLITS.items():
        spread = (share * (1 - share) / len(meanings)) ** 0.5
        assert abs(counts[split] / len(meanings) - share) < 4 * spread


def test_splits_are_stable() -> None:
    """A changed hash, order or wording would leak training prompts of a shipped checkpoint into its test set."""
    assert [prompt.id for prompt in prompts("test", 1)] == [
        "a-black-square",
        "a-red-cross-and-a-yellow-cross",
        "a-red-circle-a-blue-circle-and-a-black-ring",
        "a-large-blue-circle-and-a-large-blue-square",
        "a-square-a-cross-and-a-ring",
        "a-blue-circle-a-blue-triangle-a-blue-cross-and-a-blue-ring",
        "a-large-purple-ring",
        "a-small-cross-and-a-large-black-cross",
        "a-small-triangle-a-small-square-and-a-large-cross",
        "two-triangles",
        "three-small-red-rings",
        "five-large-black-crosses",
        "a-square-below-a-cross",
        "a-blue-square-below-a-red-ring",
        "a-large-black-square-above-a-small-yellow-ring",
    ]
    assert [prompts(split)[-1].id for split in SPLITS] == [
        "a-small-blue-circle-left-of-a-small-yellow-circle",
        "a-large-yellow-triangle-above-a-large-blue-circle",
        "a-small-red-cross-below-a-large-yellow-triangle",
        "a-small-purple-triangle-right-of-a-large-blue-square",
    ]
    assert Counter(prompt.split for prompt in EVERY) == {
        "pretrain": 5992,
        "improve": 2854,
        "validation": 581,
        "test": 2378,
    }
    assert split_of(parse("a ring below a square")) == split_of(parse("a square above a ring"))


# Prompts


def test_every_cell_has_prompts_in_every_split() -> None:
    filled = Counter((prompt.category, prompt.difficulty, prompt.split) for prompt in EVERY)
    assert set(filled) == {(*cell, split) for cell in CELLS for split in SPLITS}
    for cell in CELLS:
        assert sum(filled[(*cell, split)] for split in SPLITS) <= MAX_PROMPTS_PER_CELL


def test_names_are_unique_and_plain() -> None:
    assert len({prompt.id for prompt in EVERY}) == len({prompt.text for prompt in EVERY}) == len(EVERY)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", prompt.id) for prompt in EVERY)


def test_prompts_come_cell_by_cell_and_fewer_are_the_first() -> None:
    for split in SPLITS:
        every = prompts(split)
        assert list(dict.fromkeys((p.category, p.difficulty) for p in every)) == CELLS
        few: list[Prompt] = []
        for cell in CELLS:
            few += [p for p in every if (p.category, p.difficulty) == cell][:3]
        assert prompts(split, 3) == few
        assert prompts(split) == every
        assert [p.text for p in every] == [d.text for cell in CELLS for d in descriptions(*cell, split)]


def test_prompts_are_what_their_category_and_tier_say() -> None:
    for prompt in EVERY:
        description = parse(prompt.text)
        things, tier = description.things, DIFFICULTIES.index(prompt.difficulty)
        colors, shapes, sizes = ({getattr(t, name) for t in things} for name in ("color", "shape", "size"))
        assert bool(description.relation) == (prompt.category == "spatial")
        match prompt.category:
            case "color":
                assert len(things) == len(colors) == tier + 1
                assert "" not in colors
                assert sizes == {""}
            case "shape":
                assert len(things) == len(shapes) == tier + 2
                assert len(colors) == len(sizes) == 1
            case "size":
                assert len(things) == len(set(things)) == tier + 1
                assert sizes == set(SIZES) if tier else len(sizes - {""}) == 1
            case "count":
                assert len(description.groups) == len(set(things)) == 1
                assert len(things) in [(2,), (3, 4), (5, 6)][tier]
            case "spatial":
                assert len(set(things)) == len(things) == 2
                assert ("" in colors, "" in sizes) == [(True, True), (False, True), (False, False)][tier]


# Mistakes


def test_an_unknown_split_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"^unknown split 'tset'.*pretrain, improve, validation, test$"):
        prompts("tset")


@pytest.mark.parametrize("per_cell", [0, -1])
def test_too_few_per_cell_is_refused(per_cell: int) -> None:
    with pytest.raises(ValueError, match=rf"^per_cell must be >= 1, got {per_cell}"):
        prompts("test", per_cell)
