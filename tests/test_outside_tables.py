"""Tables from people and from other projects: read strictly, and what is not read is said."""

from __future__ import annotations

import csv
import doctest
import io
import json
from pathlib import Path

import pytest
from benchmark_files import DSG, dsg_csv, lay_sets, lines
from PIL import Image

import unigap.cli.commands.judge
import unigap.console.mistakes
import unigap.console.parser
import unigap.judges.human
import unigap.prompt_sets.hub
import unigap.prompt_sets.same_text
import unigap.prompt_sets.science_t2i
from unigap.__main__ import main
from unigap.cli.commands.judge import _write_images, sheet_bytes
from unigap.evaluation.gap_meter import GapMeter
from unigap.judges import QuestionFile, SelfJudge
from unigap.judges.human import read_votes
from unigap.objectives import SFT
from unigap.prompt_sets.contamination import find_overlaps, repeats
from unigap.prompt_sets.loading import load_prompts
from unigap.prompt_sets.same_text import prompt_numbers
from unigap.records import Candidate, Prompt
from unigap.stages import SFTStage


@pytest.mark.parametrize(
    "module", [unigap.prompt_sets.same_text, unigap.judges.human, unigap.console.mistakes, unigap.console.parser]
)
def test_the_examples_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_keys_that_are_not_read_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.jsonl").write_text(lines({"text": "a", "weight": 1}, {"text": "b", "weight": 2, "lang": "en"}))
    assert [prompt.text for prompt in load_prompts("mine.jsonl", "improve")] == ["a", "b"]
    (told,) = capsys.readouterr().err.splitlines()
    assert told == "note: prompts 'mine.jsonl': keys that are not read: 'weight' (2 of them), 'lang'"


def test_columns_that_are_not_read_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text("candidate_id,verdict,rater,Rater,comment\nx,yes,ann,ben,\n")
    assert read_votes(Path("votes.csv")) == {"x": {"ann": True}}
    assert "columns that are not read: 'Rater', 'comment'" in capsys.readouterr().err
    Path("dsg.csv").write_text(DSG)
    QuestionFile("dsg.csv")
    load_prompts("dsg:dsg.csv", "test")
    assert "not read" not in capsys.readouterr().err, "published columns are known"


def test_keys_of_questions_answers_and_detections_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.jsonl").write_text(lines({"prompt": "p", "id": "1", "question": "a ring?", "parent": ["2"]}))
    QuestionFile("q.jsonl")
    assert "'parent'" in capsys.readouterr().err
    Path("p.jsonl").write_text(lines({"tag": "one", "include": [{"class": "x", "count": 1}], "prompt": "x", "note": 1}))
    found = {"class": "x", "box": [0, 0, 1, 1], "score": 1, "mask": "rle"}
    Path("a.jsonl").write_text(lines({"id": "00000", "objects": [found, found], "file": "0.png"}))
    assert main(["score", "geneval", "--prompts", "geneval:p.jsonl", "--answers", "a.jsonl"]) == 0
    told = capsys.readouterr().err
    assert "prompts 'p.jsonl': keys that are not read: 'note'" in told
    assert "answers 'a.jsonl': keys that are not read: 'file'" in told
    assert "answers 'a.jsonl', objects: keys that are not read: 'mask' (2 of them)" in told


def test_line_breaks_in_published_prompts_are_read_as_spaces(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "A long prompt.\n\nIts second paragraph,\r\n broken twice.\n"
    Path("mine.jsonl").write_text(lines({"text": long}, {"text": "a ring"}))
    first, second = load_prompts("mine.jsonl", "improve")
    assert first.text == first.id == "A long prompt. Its second paragraph, broken twice." and second.text == "a ring"
    assert "1 of 2 prompts hold line breaks, read as spaces" in capsys.readouterr().err
    Path("long.csv").write_text(dsg_csv(("x_1", long, "1", "0", "e", "w", "q")))
    assert load_prompts("dsg:long.csv", "test")[0].text == first.text


def test_a_table_of_rows_without_an_end_is_not_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_sets(here)
    for module, source in (
        (unigap.prompt_sets.hub, "datasets:science-t2i-s.parquet#implicit_prompt"),
        (unigap.prompt_sets.science_t2i, "science-t2i:science-t2i-s.parquet"),
    ):
        assert len(load_prompts(source, "test")) == 2
        monkeypatch.setattr(module, "MOST_ROWS", 1)
        with pytest.raises(ValueError, match="rows"):
            load_prompts(source, "test")


def test_a_text_is_the_same_however_it_is_composed() -> None:
    train = [
        Prompt("1", "A cafe\u0301."),
        Prompt("2", "a red\u200b circle"),
        Prompt("3", "STRASSE"),
        Prompt("4", "a ring"),
    ]
    held_out = [
        Prompt("a", "a caf\u00e9"),
        Prompt("b", "\uff41 red circle"),
        Prompt("c", "stra\u00dfe"),
        Prompt("d", "rings"),
    ]
    assert [(found.train.id, found.held_out.id) for found in find_overlaps(train, held_out) if found.same] == [
        ("1", "a"), ("2", "b"), ("3", "c")
    ]  # fmt: skip
    assert [prompt.id for prompt in repeats([*train, *held_out])] == ["a", "b", "c"]


def test_lines_of_one_prompt_are_one_cluster(here: Path) -> None:
    prompts = [Prompt("a", "a ring"), Prompt("b", "A ring."), Prompt("c", "a circle")]
    assert prompt_numbers(prompts) == [0, 0, 1]
    assert GapMeter(prompts, 2).clusters == {"a": 0, "b": 0, "c": 1}
    include = [{"class": "x", "count": 1}]
    found = [{"class": "x", "box": [0, 0, 1, 1], "score": 1}]
    rows = [{"tag": "one", "include": include, "prompt": f"x {i % 8}"} for i in range(40)]
    Path("p.jsonl").write_text(lines(*rows))
    Path("a.jsonl").write_text(lines(*({"id": f"{i:05d}", "objects": found if i % 8 < 4 else []} for i in range(40))))
    command = ["score", "geneval", "--prompts", "geneval:p.jsonl", "--answers", "a.jsonl", "--out", "f.json"]
    assert main(command) == 0
    figure = json.loads(Path("f.json").read_text())["one"]
    assert figure["n"] == 40 and figure["high"] - figure["low"] > 0.5, "eight prompts, not forty lines"


def test_what_a_spreadsheet_would_run_is_text_in_the_sheet(tmp_path: Path) -> None:
    texts = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "a red circle", "'=quoted"]
    drawn = [Candidate(Prompt(text, text), 0, 0, 0, None, 0.0) for text in texts]  # type: ignore[arg-type]
    rows = _write_images(tmp_path, iter([Image.new("RGB", (2, 2))] * len(texts)), drawn)
    (tmp_path / "sheet.csv").write_bytes(sheet_bytes([row | {"verdict": "yes"} for row in rows]))
    cells = [cell for row in csv.reader(io.StringIO((tmp_path / "sheet.csv").read_text())) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert list(read_votes(tmp_path / "sheet.csv")) == [candidate.id for candidate in drawn]


def test_a_judge_that_checks_itself_is_warned_of(janus: object, capsys: pytest.CaptureFixture[str]) -> None:
    SFTStage(janus, SFT(), external=SelfJudge())  # type: ignore[arg-type]
    assert "warning: the external judge 'self' is the judge that selects" in capsys.readouterr().err
    SFTStage(janus, SFT())  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_categories_are_no_markup(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.jsonl").write_text(lines({"text": "a", "category": "[/x]"}, {"text": "b", "category": "[b]y[/b]"}))
    assert main(["prompts", "import", "mine.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "[/x]" in printed and "[b]y[/b]" in printed
