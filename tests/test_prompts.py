"""Prompt files, good and bad, and prompts that must not be on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unigap.prompt_sets import read_prompt_file
from unigap.prompt_sets import rows as prompt_rows
from unigap.prompt_sets.contamination import check_no_overlap
from unigap.prompt_sets.loading import load_prompts
from unigap.prompt_sets.same_text import normalised
from unigap.records import Prompt
from unigap.worlds.shapes import prompt_sets


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(*objects: object) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects)


# Good files


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "\ufeffa red circle\r\n\n  ein größerer Kreis \n\n三个圆\n")
    texts = ["a red circle", "ein größerer Kreis", "三个圆"]
    assert read_prompt_file(path) == [Prompt(text, text) for text in texts]
    assert load_prompts(path, "improve") == load_prompts(path, "test") == read_prompt_file(path)


def test_a_json_row_may_say_more(tmp_path: Path) -> None:
    full = {"text": "a ring", "id": "r", "category": "shape", "difficulty": "hard", "split": "test", "author": [1]}
    full["truth"] = {"shape": ["ring"]}
    path = write(tmp_path, "a.jsonl", rows({"text": " a red circle "}, full, {"text": "a ring", "id": "again"}))
    assert read_prompt_file(path) == [
        Prompt("a red circle", "a red circle"),
        Prompt("r", "a ring", "shape", "hard", "test", '{"shape": ["ring"]}'),
        Prompt("again", "a ring"),
    ]


def test_line_separators_inside_a_json_string_do_not_end_the_row(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", rows({"text": "a\u2028ring"}, {"text": "a\u0085cross"}, {"text": "end"}))
    assert [prompt.text for prompt in read_prompt_file(path)] == ["a\u2028ring", "a\u0085cross", "end"]


def test_rows_without_a_split_belong_to_every_one(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.jsonl", rows({"text": "1", "split": "improve"}, {"text": "2"}, {"text": "3", "split": "test"})
    )
    assert [prompt.text for prompt in load_prompts(path, "improve")] == ["1", "2"]
    assert [prompt.text for prompt in load_prompts(path, "test")] == ["2", "3"]
    assert [prompt.text for prompt in load_prompts(path, "validation")] == ["2"]


def test_the_first_of_each_cell_are_taken_in_order(tmp_path: Path) -> None:
    cells = [("a", "x"), ("b", "x"), ("a", "x"), ("a", "y"), ("a", "x"), ("b", "x")]
    objects = [{"text": str(i), "category": c, "difficulty": d} for i, (c, d) in enumerate(cells)]
    path = write(tmp_path, "a.jsonl", rows(*objects))
    assert [prompt.text for prompt in load_prompts(path, "test", per_cell=1)] == ["0", "1", "3"]
    assert [prompt.text for prompt in load_prompts(path, "test", per_cell=2)] == ["0", "1", "2", "3", "5"]
    assert len(load_prompts(path, "test")) == 6


def test_the_embedded_world_is_a_source() -> None:
    assert load_prompts("shapes", "validation", 2) == prompt_sets.prompts("validation", 2)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        load_prompts("shapes", "dev")


# Bad files


BAD_ROWS = {
    "not json": ("{", "line 2: not JSON"),
    "a number": ("5", "line 2: needs an object with a 'text' string"),
    "a list": ('["a ring"]', "line 2: needs an object"),
    "null": ("null", "line 2: needs an object"),
    "no text": ('{"prompt": "a ring"}', "line 2: needs an object with a 'text' string"),
    "text is a number": ('{"text": 5}', "line 2: needs an object"),
    "text is nan": ('{"text": NaN}', "line 2: not JSON .NaN is no JSON number"),
    "a score that is no number": ('{"text": "a ring", "score": -Infinity}', "line 2: not JSON .-Infinity is no JSON"),
    "a key twice": ('{"text": "a ring", "text": "a cross"}', "line 2: not JSON .the key 'text' occurs twice"),
    "cut off": ('{"text": "a ri', "line 2: not JSON"),
    "empty text": ('{"text": "  "}', "line 2: empty prompt"),
    "id is a number": ('{"text": "a ring", "id": 7}', "line 2: 'id' must be a non-empty string, got int"),
    "id is null": ('{"text": "a ring", "id": null}', "line 2: 'id' must be a non-empty string, got NoneType"),
    "empty category": ('{"text": "a ring", "category": ""}', "line 2: 'category' must be a non-empty string"),
    "difficulty is nan": ('{"text": "a ring", "difficulty": NaN}', "line 2: not JSON"),
    "split is a list": ('{"text": "a ring", "split": ["test"]}', "line 2: 'split' must be"),
    "twice": ('{"text": "good"}', "line 2: id 'good' occurs twice"),
    "nul": ('{"text": "a\\u0000ring"}', "line 2: holds a control character"),
    "tab": ('{"text": "a\\tring"}', "line 2: holds a control character"),
    "an infinite number": ('{"text": "a ring", "truth": {"n": -1e999}}', "line 2: not JSON .*-1e999 is too large"),
    "half a pair": ('{"text": "a \\ud83d ring"}', "line 2: holds a control character, .* or a broken surrogate"),
    "control character in the id": ('{"text": "a ring", "id": "a\\u001b[2J"}', "line 2: holds a control character"),
    "deep": ("[" * 100_000, "line 2: not JSON"),
    "a long number": ('{"text": ' + "1" * 5000 + "}", "line 2: "),
    "a long number that nobody reads": ('{"text": "a ring", "n": ' + "1" * 5000 + "}", "line 2: not JSON"),
    "byte-order mark": ('{"text": "\\ufeffa ring"}', "line 2: holds a control character, a byte-order mark"),
    "control character in the split": ('{"text": "a ring", "split": "a\\u0007"}', "line 2: holds a control character"),
    "id that leaves the folder": ('{"text": "a ring", "id": "../../etc/passwd"}', "line 2: id '../../etc/passwd' is a"),
    "id that leaves the folder, on Windows": ('{"text": "a ring", "id": "a\\\\..\\\\b"}', "line 2: id .* is a path"),
    "a long id": (json.dumps({"text": "a ring", "id": "x" * 4001}), "line 2: name of 4001 characters"),
    "truth is a word": ('{"text": "a ring", "truth": "ring"}', "line 2: 'truth' must be an object, got str"),
    "a long truth": (json.dumps({"text": "a ring", "truth": {"x": "y" * 100_000}}), "line 2: truth of 1000.. char"),
    "too long": (json.dumps({"text": "x" * 4001}), "line 2: prompt of 4001 characters"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, name: str) -> None:
    row, reason = BAD_ROWS[name]
    path = write(tmp_path, "bad.jsonl", rows({"text": "good"}) + row + "\n" + rows({"text": "another"}))
    with pytest.raises(ValueError, match=reason) as error:
        load_prompts(path, "improve")
    assert path in str(error.value) and len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a ring\na red circle\na ring\n", "line 3: id 'a ring' occurs twice"),
        ("a ring\n\na\x1bring\n", "line 3: holds a control character"),
        ("a\x0bring\n", "line 1: holds a control character"),
        ("x" * 4001, "line 1: prompt of 4001 characters"),
        ("a ring\n\ufeffa cross\n", "line 2: holds a control character, a byte-order mark"),
        ("x" * 2**20, "line 1: prompt of 1048576 characters"),
        ("", "holds no prompt"),
        ("\n \n\t\n", "holds no prompt"),
        (b"a ring\n\xff\xfe", "not UTF-8 at byte 7"),
        ("a ring".encode("utf-16"), "not UTF-8 at byte 0"),
    ],
)
def test_a_bad_text_file_is_named(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        load_prompts(write(tmp_path, "bad.txt", content), "improve")
    assert "bad.txt" in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.txt", "no such file"), ("", "no such file"), ("folder.txt", "no such file"), ("a\0b", "no such file"),
     ("prompts.csv", r"unknown kind '\.csv'"), ("prompts", "unknown kind ''")],
)  # fmt: skip
def test_what_is_no_prompt_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.txt").mkdir()
    for made in ("prompts.csv", "prompts"):
        write(tmp_path, made, "a ring")
    with pytest.raises(ValueError, match=reason):
        load_prompts(str(tmp_path / name) if name else "", "improve")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_rows, "MAX_BYTES", 2**20)
    path = write(tmp_path, "large.txt", b"\xff" * (2**20 + 1))
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        load_prompts(path, "improve")


def test_a_split_without_prompts_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", rows({"text": "a ring", "split": "test"}))
    with pytest.raises(ValueError, match="no prompt in split 'improve'; it has: test"):
        load_prompts(path, "improve")


@pytest.mark.parametrize("source", ["shapes", "file"])
def test_a_cell_of_nothing_is_refused(tmp_path: Path, source: str) -> None:
    path = source if source == "shapes" else write(tmp_path, "a.txt", "a ring")
    with pytest.raises(ValueError, match="per_cell must be >= 1, got 0"):
        load_prompts(path, "test", per_cell=0)


# Overlap


@pytest.mark.parametrize("text", ["A red  circle", "a red circle.", " a RED circle . ", "a red\u00a0circle"])
def test_the_same_prompt_in_other_clothes_is_the_same(text: str) -> None:
    assert normalised(text) == "a red circle"
    with pytest.raises(ValueError, match="1 evaluation prompts are also trained on, first"):
        check_no_overlap([Prompt("1", "a red circle")], [Prompt("2", "a ring"), Prompt("3", text)])


def test_prompts_that_differ_do_not_overlap() -> None:
    check_no_overlap([Prompt("1", "a red circle")], [Prompt("1", "a red circle and a ring"), Prompt("2", "red circle")])
    check_no_overlap([], [Prompt("1", "a ring")])
    check_no_overlap(load_prompts("shapes", "improve", 20), load_prompts("shapes", "test", 20))
