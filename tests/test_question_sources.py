"""Where a decomposed judge's questions come from: a file as DSG-1k was published, one's own, or the prompts."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_files import dsg_csv
from small_runs import expect_error, improve

from unigap.judges import DecomposedJudge, PromptQuestions, QuestionFile
from unigap.judges.questions import all_hold
from unigap.pool import Pool
from unigap.prompt_sets.loading import read_prompts
from unigap.records import Candidate, Prompt

PUBLISHED = next(Path(__file__).resolve().parents[2].glob("*/benchmarks/dsg/dsg-1k-anns.csv"), None)
"""DSG-1k as published, in a folder beside the repository."""
ROWS = [
    ("p0", "1", "Does this image describe a circle?", ""),
    ("p0", "2", "Does this image describe a red circle?", "1"),
    ("p1", "1", "Does this image show a square, and a ring?", "0"),
]
# the faults of the published file: a word, an id that is not there, a question that depends on itself, a circle
RING, BLUE = "a ring", "two blue squares"
FAULTY = [
    ("x_1", RING, "1", "0", "Does this image describe a ring?"),
    ("x_1", RING, "2", "1, ground", "Does this image describe a red ring?"),
    ("x_1", RING, "3", "1,3", "Does this image describe a small ring?"),
    ("x_2", BLUE, "2", "1", "Does this image describe two squares?"),
    ("x_2", BLUE, "3", "2,4", "Does this image describe two blue squares?"),
    ("x_2", BLUE, "4", "3", "Does this image describe a blue square?"),
]
SOUND = {"x_1": [(), ("1",), ("1",)], "x_2": [(), ("2",), ()]}
"""The parents that are left, by item."""


def dsg(path: Path, rows: Sequence[Sequence[str]] = ROWS) -> str:
    """A file with those of DSG's columns that hold questions, and one more."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = ["keywords", "item_id", "proposition_id", "question_natural_language", "dependency"]
        writer.writerows([names, *(["x", *row] for row in rows)])
    return str(path)


def whole_dsg(path: Path) -> str:
    """The faulty rows with all of DSG's columns."""
    path.write_text(dsg_csv(*((item, text, n, parents, "entity", "whole", q) for item, text, n, parents, q in FAULTY)))
    return str(path)


def lines(path: Path, rows: Sequence[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def candidates(*texts: str) -> list[Candidate]:
    codes = np.zeros(16, dtype=np.int32)
    return [Candidate(Prompt(f"p{i}", text), 0, 0, 0, codes, -1.0) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def pictures(janus: Any) -> torch.Tensor:
    """Three drawings of the small Janus."""
    codes_BM = torch.arange(3 * janus.image_tokens).view(3, -1) % janus.n_codes
    return janus.decode(codes_BM)


def test_questions_come_from_a_file_of_dsg_or_of_ones_own(
    janus: Any, pictures: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [{"prompt": p, "id": i, "question": q, "parents": d.replace("0", "").split()} for p, i, q, d in ROWS]
    files = QuestionFile(dsg(tmp_path / "q.csv")), QuestionFile(lines(tmp_path / "q.jsonl", own))
    for source in files:
        first = source.questions(Prompt("p0", "whatever"))
        assert [(q.id, q.text, q.parents) for q in first] == [("1", ROWS[0][2], ()), ("2", ROWS[1][2], ("1",))]
        judge = DecomposedJudge(source)
        said = judge.logits(janus, candidates("a", "b"), pictures[:2])
        single = janus.judge_logit(pictures[:2], [[ROWS[0][2], ROWS[1][2]], [ROWS[2][2]] * 2]).tolist()
        expected = [all_hold(first, single[0]), single[1][0]]
        assert said.tolist() == pytest.approx(expected, abs=1e-5)
        with pytest.raises(ValueError, match="none for prompt 'p2'"):
            judge.logits(janus, candidates("a", "b", "c"), pictures)
    assert capsys.readouterr().err == ""


def test_a_file_that_changes_asks_other_questions(tmp_path: Path) -> None:
    first = QuestionFile(dsg(tmp_path / "q.csv")).recipe
    assert QuestionFile(dsg(tmp_path / "again.csv")).recipe == first
    other = QuestionFile(dsg(tmp_path / "q.csv", ROWS[:2]))
    assert other.recipe != first
    (tmp_path / "q.csv").unlink()
    with pytest.raises(ValueError, match="no such file any more"):
        _ = other.recipe


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("q.txt", "x", r"unknown kind '\.txt'; give a \.csv or a \.jsonl file"),
        ("q.csv", "item_id,proposition_id,dependency\n", "no column 'question_natural_language'"),
        ("q.csv", "item_id,proposition_id,dependency,question_natural_language\n", "holds no question"),
        ("q.csv", "item_id,proposition_id,dependency,question_natural_language\np,1,0,\n", "line 2: needs the id"),
        ("q.csv", "item_id,proposition_id,dependency,question_natural_language\np,1\n", "line 2: needs 4 fields"),
        ("q.jsonl", '{"prompt": "p", "id": "1", "question": "a?"}\n{"prompt', "line 2: not JSON"),
        ("q.jsonl", '{"prompt": "p", "id": 1, "question": "a?"}', "line 1: needs the id"),
        ("q.jsonl", "[1]", "line 1: needs an object"),
        ("q.jsonl", '{"prompt": "p", "id": "1", "question": "a?", "parents": "1"}', "a list of ids"),
        ("q.jsonl", '{"prompt": "p", "id": "1", "question": "a?"}\n' * 2, "two questions '1'"),
        ("q.jsonl", '{"prompt": "p", "id": "1", "question": "a?", "parents": ["2"]}', "line 1: .* not there; add it"),
        ("q.jsonl", '{"prompt": "p", "id": "1", "question": "a?", "parents": ["1"]}', "line 1: .* in a circle; remove"),
        ("q.jsonl", "[" * 100_000, "not JSON"),
    ],
)
def test_a_file_without_questions_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason):
        QuestionFile(str(tmp_path / name))


# What was published is read, faults and all


def parents(source: QuestionFile | PromptQuestions, prompts: Sequence[Prompt]) -> dict[str, list[tuple[str, ...]]]:
    return {prompt.id: [question.parents for question in source.questions(prompt)] for prompt in prompts}


def test_published_faults_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = whole_dsg(tmp_path / "dsg.csv")
    assert parents(QuestionFile(path), [Prompt("x_1", RING), Prompt("x_2", BLUE)]) == SOUND
    (told,) = capsys.readouterr().err.splitlines()
    assert told == (
        f"warning: questions {path!r}: of 6 questions 2 depend on something that is no question of their prompt, 3 on "
        "themselves, directly or in a circle; such parents are dropped, the first in line 3: 'ground'"
    )


def test_a_no_in_a_circle_is_a_no(janus: Any, tmp_path: Path) -> None:
    blue = QuestionFile(whole_dsg(tmp_path / "dsg.csv")).questions(Prompt("x_2", BLUE))
    assert all_hold(blue, [3.0, -1.0, 2.0]) == -1.0 and all_hold(blue, [3.0, 2.0, -1.0]) == -1.0
    assert all_hold(blue, [-2.0, -9.0, -1.0]) == -2.0, "a child of a no does not count, and 4 is nobody's child"


def test_prompts_bring_their_questions_along(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = read_prompts(f"dsg:{whole_dsg(here / 'dsg.csv')}")
    assert parents(PromptQuestions(), prompts) == SOUND
    judge = "model.init_args.judge"
    flags = {
        judge: "unigap.judges.DecomposedJudge",
        f"{judge}.init_args.questions": "unigap.judges.PromptQuestions",
        "data.prompts": "dsg:dsg.csv",
        "data.per_cell": "null",
        "data.eval_prompts": "shapes",
        "data.pool": "brought",
        "model.init_args.predict_plan.candidates": 2,
    }
    assert improve(janus_folder, "sft", flags, verb="predict") == 0
    pool = Pool.open("brought")
    assert pool.recipe(0)["judges"][0] == {"name": "decomposed", "questions": {"name": "prompt"}}
    assert [candidate.prompt for candidate in pool.candidates()] == [prompt for prompt in prompts for _ in range(2)]
    assert "warning" not in capsys.readouterr().err

    file = {f"{judge}.init_args.questions": "unigap.judges.QuestionFile"}
    file[f"{judge}.init_args.questions.init_args.path"] = "dsg.csv"
    assert improve(janus_folder, "sft", {**flags, **file, "data.pool": "given"}, verb="predict") == 0
    assert Pool.open("given").judgments() == pool.judgments()
    assert capsys.readouterr().err.count("warning: questions 'dsg.csv': of 6 questions 2 depend") == 1

    Path("plain.txt").write_text("a ring\n")
    status = improve(janus_folder, "sft", {**flags, "data.prompts": "plain.txt", "data.pool": "none"}, verb="predict")
    expect_error(status, capsys, "prompt 'a ring' has no questions", "dsg:FILE.csv")


def test_prompts_of_ones_own_bring_theirs(tmp_path: Path) -> None:
    asked = [{"id": "a", "question": "A ring?", "parents": []}, {"id": 2, "question": "Red?", "parents": ["a"]}]
    path = lines(tmp_path / "mine.jsonl", [{"text": "a red ring", "truth": {"questions": asked}}])
    (first, second) = PromptQuestions().questions(read_prompts(path)[0])
    assert (first.id, second.id, second.text, second.parents) == ("a", "2", "Red?", ("a",))


@pytest.mark.parametrize(
    "truth",
    [
        {"questions": []},
        {"questions": "a ring?"},
        {"questions": [{"id": 1, "question": "a ring?"}]},
        {"questions": [{"id": 1, "question": " ", "parents": []}]},
        {"questions": [{"id": None, "question": "a ring?", "parents": []}]},
        {"questions": [{"id": 1, "question": "a ring?", "parents": []}] * 2},
        {"questions": [{"question": "what is it?", "choices": ["ring", "cross"], "answer": "ring"}]},
    ],
)
def test_a_truth_without_questions_is_named(truth: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="prompt 'p' has no questions"):
        PromptQuestions().questions(Prompt("p", "a ring", truth=json.dumps(truth)))


@pytest.mark.skipif(PUBLISHED is None, reason="no benchmarks/dsg/dsg-1k-anns.csv in a folder beside this one")
def test_dsg_1k_is_read_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    source, prompts = QuestionFile(str(PUBLISHED)), read_prompts(f"dsg:{PUBLISHED}")
    told = capsys.readouterr().err
    assert "of 8182 questions 18 depend on something that is no question of their prompt, 51 on themselves" in told
    assert len(prompts) == 1060 and parents(source, prompts) == parents(PromptQuestions(), prompts)
    posture = {question.id: question.parents for question in source.questions(Prompt("posescript_69", ""))}
    assert posture["9"] == ("5",), "beside it stands a word"
