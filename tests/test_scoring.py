"""Benchmark rules on cases whose score is known by hand, and the tables a user gets from a file of answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import dsg_csv, lay_sets, lines
from small_runs import expect_error

from unigap.__main__ import main
from unigap.evaluation.scoring.answers import Box, Detection
from unigap.evaluation.scoring.compbench import (
    attribute_score,
    iou,
    numeracy_score,
    relation_score,
    spatial_score,
    three_in_one,
)
from unigap.evaluation.scoring.dsg import dpg_scores, valid_scores
from unigap.evaluation.scoring.geneval import is_right, kept, relations


@pytest.fixture
def sets(here: Path) -> Path:
    """A working directory with a small file of each format."""
    lay_sets(here)
    return here


def box(x: float, y: float, size: float = 10) -> Box:
    """A square by its centre."""
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def thing(name: str, at: Box = (0, 0, 10, 10), score: float = 0.95, color: str = "", depth: float = 0.0) -> Detection:
    return Detection(name, at, score, color, depth)


# GenEval


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        (box(100, 0), {"right of"}),
        (box(-100, 0), {"left of"}),
        (box(0, -100), {"above"}),
        (box(0, 100), {"below"}),
        (box(100, 100), {"right of", "below"}),
        # of an offset of (d, d) with squares of 10 the rest is d - 2, over d * sqrt(2): 0.5 at d = 2 / (1 - sqrt(0.5))
        (box(6.9, 6.9), {"right of", "below"}),
        (box(6.8, 6.8), set()),
        # along one axis the rest is d - 2, over d: 0.5 at d = 4
        (box(4.01, 0), {"right of"}),
        (box(3.99, 0), set()),
        (box(2, 2), set()),
        (box(0, 0), set()),
        # 60 degrees off the axis, far away: the cosine is 0.5 less the margin
        (box(500, 866.03), {"below"}),
    ],
)
def test_a_position_needs_a_margin_of_a_tenth_of_both_sizes(a: Box, expected: set[str]) -> None:
    assert relations(a, box(0, 0)) == expected
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert relations(box(0, 0), a) == {opposite[name] for name in expected}
    if expected:
        assert relations(a, box(0, 0), margin=100.0) == set()


BENCH = {"include": [{"class": "bench", "count": 1}], "exclude": []}
CLOCKS = {"include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]}
CAT = {
    "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
    "exclude": [],
}
BUS = {"include": [{"class": "bus", "count": 1, "color": "green"}], "exclude": []}


@pytest.mark.parametrize(
    ("truth", "tag", "found", "right"),
    [
        (BENCH, "single_object", [thing("bench", score=0.31)], True),
        (BENCH, "single_object", [thing("bench", score=0.3)], False),
        (BENCH, "single_object", [thing("chair")], False),
        (BENCH, "single_object", [], False),
        (CLOCKS, "counting", [thing("clock")] * 2, True),
        (CLOCKS, "counting", [thing("clock")] * 3, False),
        (CLOCKS, "counting", [thing("clock")] * 2 + [thing("clock", score=0.9)], True),
        (CLOCKS, "counting", [thing("clock"), thing("clock", score=0.89)], False),
        (CAT, "position", [thing("dog", box(100, 0)), thing("cat", box(0, 0))], True),
        (CAT, "position", [thing("dog", box(0, 0)), thing("cat", box(100, 0))], False),
        (CAT, "position", [thing("cat", box(0, 0))], False),
        # only the surest cat is looked at
        (
            CAT,
            "position",
            [thing("dog", box(50, 0)), thing("cat", box(99, 0), 0.6), thing("cat", box(0, 0), 0.7)],
            True,
        ),
        (BUS, "colors", [thing("bus", color="green")], True),
        (BUS, "colors", [thing("bus", color="red")], False),
        (BUS, "colors", [thing("bus", score=0.9, color="red"), thing("bus", score=0.8, color="green")], False),
    ],
)
def test_an_image_is_right_when_every_clause_holds(
    truth: dict[str, Any], tag: str, found: Sequence[Detection], right: bool
) -> None:
    assert is_right(truth, kept(found, tag)) is right


def test_sixteen_detections_of_a_class_are_kept() -> None:
    many = {"include": [{"class": "clock", "count": 17}], "exclude": []}
    assert not is_right(many, kept([thing("clock")] * 17, "counting"))


def objects(*found: Detection) -> list[dict[str, Any]]:
    rows = [{"class": one.name, "box": list(one.box), "score": one.score} for one in found]
    return [row | ({"color": one.color} if one.color else {}) for row, one in zip(rows, found, strict=True)]


def test_the_geneval_score_is_the_mean_of_tags(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench, bus = objects(thing("bench")), objects(thing("bus", color="green"), thing("oven", color="red"))
    rows = [("00000", bench), ("00000", bench), ("00000", []), ("00003", bus), ("00003", bus)]
    Path("answers.jsonl").write_text(lines(*({"id": name, "objects": found} for name, found in rows)))
    command = ["score", "geneval", "--prompts", "geneval:evaluation_metadata.jsonl", "--answers", "answers.jsonl"]
    assert main([*command, "--out", "figures.json"]) == 0
    printed = capsys.readouterr().out
    assert "geneval: 5 images for 2 of 4 prompts" in printed and "color_attr" in printed
    figures = json.loads(Path("figures.json").read_text())
    assert list(figures) == ["single_object", "color_attr", "mean of tags"]
    assert figures["single_object"]["value"] == pytest.approx(2 / 3) and figures["single_object"]["n"] == 3
    assert figures["color_attr"]["value"] == 1.0 and figures["color_attr"]["low"] < 1.0
    assert figures["mean of tags"]["value"] == pytest.approx(5 / 6)
    low, high = figures["mean of tags"]["low"], figures["mean of tags"]["high"]
    assert low + 1e-9 >= 2 / 3 and low < 5 / 6 < high <= 1


def test_intervals_resample_prompts_not_images(here: Path) -> None:
    rows = [{"tag": "one", "include": [{"class": "x", "count": 1}], "prompt": f"x {i}"} for i in range(8)]
    Path("p.jsonl").write_text(lines(*rows))
    one = lines(*({"id": f"{i:05d}", "objects": objects(thing("x")) if i % 2 else []} for i in range(8)))
    figures = []
    for name, copies in (("a", 1), ("b", 10)):
        Path("answers.jsonl").write_text(one * copies)
        command = ["score", "geneval", "--prompts", "geneval:p.jsonl", "--answers", "answers.jsonl"]
        assert main([*command, "--out", f"{name}.json"]) == 0
        figures.append(json.loads(Path(f"{name}.json").read_text())["one"])
    assert figures[0]["value"] == figures[1]["value"] == 0.5 and figures[1]["n"] == 80
    assert [figures[0][end] for end in ("low", "high")] == pytest.approx([figures[1][end] for end in ("low", "high")])


# T2I-CompBench++


def test_attributes_multiply_and_complex_parts_average() -> None:
    assert attribute_score([0.5, 0.8]) == pytest.approx(0.4) and attribute_score([]) == 1
    assert three_in_one([0.3, 0.9]) == pytest.approx(0.6) and three_in_one([0.3, 0.6, 0.9]) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("relation", "a", "b", "score"),
    [
        ("on the left of", box(0, 0), box(100, 50), 1),
        ("on the left of", box(100, 0), box(0, 0), 0),
        ("on the left of", box(0, 0), box(50, 100), 0),
        ("on the right of", box(100, 0), box(0, 0), 1),
        ("on the top of", box(0, 0), box(0, 100), 1),
        ("on the bottom of", box(0, 0), box(0, 100), 0),
        ("on the bottom of", box(0, 100), box(0, 0), 1),
        # squares of 10 moved by 5: IoU 50 / 150, so 0.1 / (1 / 3)
        ("on the left of", box(0, 0), box(5, 0), 0.3),
        ("next to", box(0, 0), box(149, 900), 1),
        ("near", box(0, 0), box(200, 300), 0.5),
        ("on side of", box(0, 0), box(0, 0), 1),
    ],
)
def test_relations_in_the_plane(relation: str, a: Box, b: Box, score: float) -> None:
    assert relation_score(relation, thing("a", a), thing("b", b)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("relation", "depths", "shift", "score"),
    [
        # squares of 10 moved by 2: IoU 80 / 120; by 5: 1 / 3, of 0.5 two thirds; by 10 nothing in common
        ("in front of", (2, 1), 2, 1),
        ("in front of", (1, 2), 2, 0),
        ("in front of", (2, 1), 5, 2 / 3),
        ("in front of", (2, 1), 10, 0),
        ("behind", (1, 2), 5, 2 / 3),
        ("hidden by", (1, 2), 2, 1),
        ("hidden by", (2, 1), 2, 0),
    ],
)
def test_relations_in_depth(relation: str, depths: tuple[float, float], shift: float, score: float) -> None:
    a, b = thing("a", box(0, 0), depth=depths[0]), thing("b", box(shift, 0), depth=depths[1])
    assert relation_score(relation, a, b) == pytest.approx(score)


def test_a_spatial_score_is_half_objects_half_relation() -> None:
    truth = {"include": [{"class": "girl", "count": 1}, {"class": "lamp", "count": 1}], "relation": "on the left of"}
    person, lamp = thing("person", box(0, 0), 0.8), thing("lamp", box(100, 0), 0.6)
    assert spatial_score(truth, [person, lamp]) == pytest.approx(0.25 * 0.8 + 0.25 * 0.6 + 0.5)
    assert spatial_score(truth | {"relation": "on the right of"}, [person, lamp]) == 0, "below one half is nothing"
    assert spatial_score(truth, [person]) == spatial_score(truth, []) == 0
    assert spatial_score(truth | {"relation": "behind"}, [person]) == pytest.approx(0.2), "in depth it is kept"


def test_numbers_count_half_for_being_there() -> None:
    truth = {"include": [{"class": "boy", "count": 2}, {"class": "dog", "count": 1}]}
    boys = [thing("person", box(0, 0)), thing("person", box(100, 0))]
    assert numeracy_score(truth, [*boys, thing("dog")]) == 1
    assert numeracy_score(truth, [*boys[:1], thing("dog")]) == 0.75
    assert numeracy_score(truth, boys) == 0.5 and numeracy_score(truth, []) == 0
    again = thing("person", (-4.9, -4.9, 4.9, 4.9))
    assert numeracy_score(truth, [*boys, again, thing("dog")]) == 1, "a box in a box is one object"
    assert iou(box(0, 0), again.box) > 0.9


def test_compbench_scores_each_category_by_its_rule(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    girl, frog = thing("person", box(0, 0), 1.0), thing("frog", box(0, 100), 1.0)
    depth = [{**row, "depth": 1.0} for row in objects(thing("dog", score=1.0))]
    rows = [
        {"id": "color-val-000", "phrases": [0.5, 0.5]},
        {"id": "spatial-val-000", "objects": objects(girl, frog)},
        {"id": "3d_spatial-val-000", "objects": depth},
        {"id": "numeracy-val-000", "objects": objects(thing("person", box(0, 0)), thing("person", box(90, 0)))},
        {"id": "non_spatial-val-000", "similarity": 0.3},
        {"id": "complex-val-000", "attribute": 0.2, "spatial": 0.4, "action": 0.3},
    ]
    Path("answers.jsonl").write_text(lines(*rows))
    command = ["score", "compbench", "--prompts", "t2i-compbench:t2i_compbench", "--answers", "answers.jsonl"]
    assert main([*command, "--out", "figures.json"]) == 0
    values = {tag: found["value"] for tag, found in json.loads(Path("figures.json").read_text()).items()}
    assert values == pytest.approx(
        {"color": 0.25, "spatial": 1, "3d_spatial": 0.25, "numeracy": 1, "non_spatial": 0.3, "complex": 0.3}
        | {"mean of tags": (0.25 + 1 + 0.25 + 1 + 0.3 + 0.3) / 6}
    )
    for row, told in [
        ({"id": "color-val-000", "phrases": [0.5]}, "1 answers; the prompt has 2"),
        ({"id": "color-val-000", "phrases": [2, 0]}, "probability of yes"),
        ({"id": "3d_spatial-val-000", "objects": objects(girl)}, "'depth'"),
        ({"id": "non_spatial-val-000"}, "'similarity' must be a number"),
        ({"id": "complex-val-000", "attribute": 0.2}, "'spatial', 'action' or both"),
    ]:
        Path("answers.jsonl").write_text(lines(row))
        capsys.readouterr()
        expect_error(main(command), capsys, "answers 'answers.jsonl', line 1", told)


# DSG and DPG-Bench


def test_a_child_of_a_no_counts_nothing() -> None:
    parents = {1: [], 2: [1], 3: [1, 2], 4: [9], 5: [2]}
    assert valid_scores({1: True, 2: True, 3: True, 4: True, 5: True}, parents) == dict.fromkeys(range(1, 6), 1.0)
    assert valid_scores({1: True, 2: False, 3: True, 4: True, 5: True}, parents) == {1: 1, 2: 0, 3: 0, 4: 1, 5: 0}
    no_root = {1: False, 2: True, 3: True, 4: True, 5: True}
    assert valid_scores(no_root, parents) == {1: 0, 2: 0, 3: 0, 4: 1, 5: 1}, "the answer of a parent decides"
    chain = {1: [], 2: [1], 5: [2]}
    assert dpg_scores({1: False, 2: True, 5: True}, chain) == {1: 0, 2: 0, 5: 0}, "a 0 is handed on"


ROWS = [("a_1", "x", "1", "0", "entity", "whole", "?"), ("a_1", "x", "2", "1", "attribute", "color", "?")]
ROWS += [("b_1", "y", "1", "0", "entity", "whole", "?"), ("b_1", "y", "2", "1", "attribute", "color", "?")]
ANSWERS = [("a_1", "no", "yes"), ("b_1", "no", "yes"), ("b_1", "Yes", "yes")]


def dsg_figures(*flags: str) -> dict[str, float]:
    rows = [{"id": item, "answers": {"1": first, "2": second}} for item, first, second in ANSWERS]
    Path("answers.jsonl").write_text(lines(*rows))
    command = ["score", "dsg", "--prompts", "dsg:p.csv", "--answers", "answers.jsonl", "--out", "figures.json"]
    assert main([*command, *flags]) == 0
    return {tag: found["value"] for tag, found in json.loads(Path("figures.json").read_text()).items()}


def test_the_faults_of_the_published_program_are_off_unless_asked_for(here: Path) -> None:
    Path("p.csv").write_text(dsg_csv(*ROWS))
    assert dsg_figures() == pytest.approx(
        {"a": 0, "b": 0.5, "questions: entity": 1 / 3, "questions: attribute": 1 / 3, "mean of images": 1 / 3}
    )
    # the first row is skipped and with it a_1, whose other question depends on it; kinds come from the last image
    assert dsg_figures("--as_published_dpg") == pytest.approx(
        {"b": 0.5, "questions: entity": 1, "questions: attribute": 1, "mean of images": 0.5}
    )
    # where nothing depends on the skipped row its prompt stays, scored by what is left, before the dependency rule
    Path("p.csv").write_text(dsg_csv(ROWS[0], (*ROWS[1][:3], "0", *ROWS[1][4:]), *ROWS[2:]))
    assert dsg_figures("--as_published_dpg") == pytest.approx(
        {"a": 1, "b": 0.5, "questions: attribute": 1, "questions: entity": 1, "mean of images": 2 / 3}
    )


def test_figures_without_an_interval_are_no_numbers_in_json(here: Path) -> None:
    Path("p.csv").write_text(dsg_csv(*ROWS))
    dsg_figures()
    figure = json.loads(Path("figures.json").read_text())["b"]
    assert figure == {"value": 0.5, "low": None, "high": None, "n": 2} and not math.isnan(figure["value"])
