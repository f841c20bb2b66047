"""Lessons: their labels are true, their mistakes are small, and they give no other split away."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from plain_truths import DESCRIPTIONS, SCENES, is_true, meaning

from unigap.worlds.shapes.grammar import CATEGORIES, DIFFICULTIES, MAX_OBJECTS, Description, parse
from unigap.worlds.shapes.lessons import (
    STATEMENTS,
    Lesson,
    cell_labels,
    crowd,
    make_lesson,
    pictures,
    reword,
    slip,
    twist,
    wrong_caption,
)
from unigap.worlds.shapes.prompt_sets import SPLITS, descriptions, prompts, split_of
from unigap.worlds.shapes.scenes import GRID, JITTER, KINDS, Placed, imagine, render

SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    rng = random.Random(0)
    return [make_lesson(rng) for _ in range(5000)]


# Lessons


def test_lessons_give_no_other_split_away(lessons: list[Lesson]) -> None:
    held_out = {
        meaning(parse(prompt.text)): prompt.text for split in SPLITS if split != "pretrain" for prompt in prompts(split)
    }
    said = {d for lesson in lessons for d in (lesson.caption, *(statement for statement, _ in lesson.statements))}
    leaks = {d.text: held_out[meaning(d)] for d in said if meaning(d) in held_out}
    assert not leaks


@pytest.mark.parametrize("split", SPLITS)
def test_every_sentence_of_a_lesson_is_of_its_split(split: str) -> None:
    rng = random.Random(1)
    for _ in range(300):
        lesson = make_lesson(rng, split)
        assert {split_of(d) for d in (lesson.caption, *(d for d, _ in lesson.statements))} == {split}


def test_labels_are_true(lessons: list[Lesson]) -> None:
    for lesson in lessons:
        assert len(lesson.statements) == STATEMENTS
        assert lesson.statements[0] == (lesson.caption, lesson.faithful)
        assert all(truth == is_true(description, lesson.scene) for description, truth in lesson.statements)
        assert len({(placed.row, placed.col) for placed in lesson.scene}) == len(lesson.scene)
        assert all(placed.thing in KINDS for placed in lesson.scene)


def test_captions_are_true_and_name_objects_as_they_stand(lessons: list[Lesson]) -> None:
    assert any(len(lesson.captions) > 1 for lesson in lessons)
    for lesson in lessons:
        standing = sorted(lesson.scene, key=lambda placed: (placed.row, placed.col))
        for caption in lesson.captions:
            assert is_true(caption, lesson.scene)
            named = zip(caption.things, standing, strict=True)
            assert caption.relation or all(thing.fits(placed.thing) for thing, placed in named), caption.text


def test_lessons_are_of_every_kind_with_both_answers(lessons: list[Lesson]) -> None:
    captions = {lesson.caption for lesson in lessons}
    for category in CATEGORIES:
        for difficulty in DIFFICULTIES:
            assert captions & set(descriptions(category, difficulty, "pretrain")), (category, difficulty)
    truths = Counter(truth for lesson in lessons for _, truth in lesson.statements)
    assert 0.3 < truths[True] / truths.total() < 0.7
    assert 0.6 < sum(lesson.faithful for lesson in lessons) / len(lessons) < 0.8


def test_without_slips_every_picture_is_faithful() -> None:
    rng = random.Random(2)
    assert all(make_lesson(rng, slip_rate=0.0).faithful for _ in range(300))
    assert not all(make_lesson(rng, slip_rate=1.0).faithful for _ in range(300))


def test_the_same_seed_gives_the_same_lessons() -> None:
    one, two, other = random.Random(3), random.Random(3), random.Random(4)
    first = [make_lesson(one) for _ in range(20)]
    assert first == [make_lesson(two) for _ in range(20)]
    assert first != [make_lesson(other) for _ in range(20)]


# Sentences


@given(DESCRIPTIONS, SEEDS)
def test_a_rewording_is_true_wherever_the_original_is(description: Description, seed: int) -> None:
    rng = random.Random(seed)
    said = reword(description, rng)
    assert parse(said.text) == said
    for _ in range(5):
        assert is_true(said, imagine(description, rng))


@given(DESCRIPTIONS, SEEDS)
@example(parse("a ring and five crosses"), 6)
@example(parse("a ring and five crosses"), 10)
@example(parse("a ring and five crosses"), 19)
def test_a_twist_can_be_said(description: Description, seed: int) -> None:
    said = twist(description, random.Random(seed))
    assert said != description
    assert len(said.things) <= MAX_OBJECTS
    assert parse(said.text) == said


def test_a_twist_of_a_prompt_means_something_else() -> None:
    rng = random.Random(5)
    for prompt in rng.sample(prompts("pretrain"), 2000):
        description = parse(prompt.text)
        said = twist(description, rng)
        assert meaning(said) != meaning(description)
        if said.relation != description.relation:
            assert said.groups == description.groups
        else:
            assert sum(a != b for a, b in zip(said.groups, description.groups, strict=True)) == 1


def test_a_wrong_caption_is_false_of_the_scene_and_of_the_split(lessons: list[Lesson]) -> None:
    rng = random.Random(8)
    told = [(lesson, wrong_caption(lesson.caption, lesson.scene, rng)) for lesson in lessons[:600] if lesson.faithful]
    changed = [(lesson, said) for lesson, said in told if said != lesson.caption]
    assert len(changed) > 0.98 * len(told)
    for lesson, said in changed:
        assert split_of(said) == "pretrain" and not is_true(said, lesson.scene)
        relation = said.relation != lesson.caption.relation
        assert relation + sum(a != b for a, b in zip(said.groups, lesson.caption.groups, strict=True)) == 1


# Pictures


@given(SCENES, SEEDS)
def test_a_slip_is_one_mistake(scene: tuple[Placed, ...], seed: int) -> None:
    slipped = slip(scene, random.Random(seed))
    lost, new = set(scene) - set(slipped), set(slipped) - set(scene)
    assert 1 <= len(slipped) <= len(scene) + 1
    assert len({(placed.row, placed.col) for placed in slipped}) == len(slipped)
    assert all(placed.thing in KINDS for placed in slipped)
    assert (len(lost), len(new)) in {(1, 1), (0, 1), (1, 0)}
    if lost and new:
        (before,), (after,) = lost, new
        moved = replace(before, row=after.row, col=after.col) == after
        attributes = [getattr(before.thing, name) == getattr(after.thing, name) for name in ("shape", "color", "size")]
        altered = replace(before, thing=after.thing) == after and attributes.count(False) == 1
        assert moved or altered


def test_slips_are_of_every_sort() -> None:
    rng = random.Random(6)
    scene = imagine(parse("a ring, a cross and a square"), rng)
    changes = Counter(len(slip(scene, rng)) - len(scene) for _ in range(400))
    assert set(changes) == {-1, 0, 1}
    assert min(changes.values()) > 40


def test_a_crowd_is_labelled_cell_by_cell() -> None:
    rng = random.Random(7)
    sizes, jitters = set(), set()
    for _ in range(300):
        scene = crowd(rng)
        cells = cell_labels(scene)
        assert cells.shape == (GRID * GRID, 3)
        assert cells.dtype == torch.int64
        labelled = {
            Placed(KINDS[kind - 1], *divmod(cell, GRID), dy, dx)
            for cell, (kind, dy, dx) in enumerate(cells.tolist())
            if kind
        }
        assert labelled == set(scene)
        sizes.add(len(scene))
        jitters |= {(placed.dy, placed.dx) for placed in scene}
    assert sizes == set(range(1, 9))
    assert len(jitters) == JITTER**2


def test_pictures_are_renders_in_order(lessons: list[Lesson]) -> None:
    scenes = [lesson.scene for lesson in lessons[:8]]
    images = pictures(scenes)
    assert images.shape == (8, 3, 32, 32)
    assert all(torch.equal(image, render(scene)) for image, scene in zip(images, scenes, strict=True))
