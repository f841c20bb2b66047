"""Every published format, read from a small file of its kind, and the published files themselves where they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_files import GENEVAL, TIFA, lay_sets, lines
from small_runs import expect_error

from unigap.__main__ import main
from unigap.prompt_sets.loading import load_prompts, read_prompts
from unigap.prompt_sets.tiers import tier
from unigap.records import Prompt

PUBLISHED = next(Path(__file__).resolve().parents[2].glob("*/benchmarks/t2i_compbench"), None)
"""The files as published, in a folder beside the repository."""
needs_published = pytest.mark.skipif(
    PUBLISHED is None, reason="no benchmarks/t2i_compbench in a folder beside this one"
)


@pytest.fixture
def sets(here: Path) -> Path:
    """A working directory with a small file of each format."""
    lay_sets(here)
    return here


def test_geneval_carries_what_must_be_there(sets: Path) -> None:
    prompts = read_prompts("geneval:evaluation_metadata.jsonl")
    assert [(prompt.id, prompt.category, prompt.difficulty) for prompt in prompts] == [
        ("00000", "single_object", "easy"),
        ("00001", "counting", "easy"),
        ("00002", "position", "medium"),
        ("00003", "color_attr", "medium"),
    ]
    assert prompts[1].text == "a photo of two clocks"
    row = json.loads(GENEVAL.splitlines()[1])
    assert json.loads(prompts[1].truth) == {"include": row["include"], "exclude": row["exclude"]}


def test_t2i_compbench_reads_objects_out_of_its_patterns(sets: Path) -> None:
    prompts = {prompt.id: prompt for prompt in read_prompts("t2i-compbench:t2i_compbench")}
    assert len(prompts) == 12 and all("\r" not in prompt.text for prompt in prompts.values())
    truths = {name: json.loads(prompt.truth) for name, prompt in prompts.items() if prompt.truth}
    assert truths["color-train-000"] == {"phrases": ["a green bench", "a blue bowl"]}
    assert truths["spatial-val-000"] == {
        "include": [{"class": "girl", "count": 1}, {"class": "frog", "count": 1}],
        "relation": "on the top of",
    }
    assert truths["3d_spatial-val-000"]["relation"] == "in front of"
    assert [(item["class"], item["count"]) for item in truths["numeracy-val-001"]["include"]] == [
        ("cup", 1),
        ("peach", 4),
        ("knife", 1),
    ]
    assert prompts["numeracy-val-000"].difficulty == "easy" and prompts["spatial-val-000"].difficulty == "medium"
    assert {name for name, prompt in prompts.items() if prompt.difficulty == "any"} == {
        "color-train-001",
        "non_spatial-val-000",
        "complex-val-000",
    }


def test_splits_go_by_the_names_of_the_set_and_by_ours(sets: Path) -> None:
    source = "t2i-compbench:t2i_compbench"
    assert {prompt.split for prompt in load_prompts(source, "improve")} == {"train"}
    assert load_prompts(source, "improve") == load_prompts(source, "train")
    assert load_prompts(source, "validation") == load_prompts(source, "test") == load_prompts(source, "val")
    assert len(load_prompts(source, "val", per_cell=1)) == 7
    geneval = "geneval:evaluation_metadata.jsonl"
    assert load_prompts(geneval, "improve") == load_prompts(geneval, "test") == read_prompts(geneval)
    with pytest.raises(ValueError, match="no prompt in split 'dev'; it has: train, val"):
        load_prompts(source, "dev")


def test_dsg_carries_questions_and_what_they_depend_on(sets: Path) -> None:
    whoops, drawtext = read_prompts("dsg:dsg-1k-anns.csv")
    assert (whoops.id, whoops.text, whoops.category, whoops.difficulty) == (
        "whoops_5",
        "A cube, with ten squares",
        "whoops",
        "easy",
    )
    questions = json.loads(drawtext.truth)["questions"]
    assert drawtext.text == 'A horse says "hello"' and drawtext.difficulty == "medium"
    assert [(item["id"], item["parents"]) for item in questions] == [(1, []), (2, [1]), (3, [1, 2])]
    assert questions[2]["question"] == "Does it say hello?" and questions[2]["category"] == "other"
    assert read_prompts("dpg:dpg_bench.csv") == [whoops, drawtext]


@pytest.mark.parametrize("name", ["tifa.json", "tifa.jsonl"])
def test_tifa_carries_its_questions(here: Path, name: str) -> None:
    Path(name).write_text(json.dumps(TIFA) if name == "tifa.json" else lines(*TIFA))
    surfer, cats = read_prompts(f"tifa:{name}")
    assert (surfer.id, surfer.text, surfer.category) == ("coco_1", "A surfer walks on a beach.", "coco")
    assert [item["answer"] for item in json.loads(surfer.truth)["questions"]] == ["yes", "beach"]
    assert (cats.category, cats.difficulty) == ("drawbench", "easy")


def test_tifa_captions_need_no_questions(here: Path) -> None:
    Path("tifa.json").write_text(json.dumps([{"id": "coco_1", "caption": "A ring."}]))
    assert read_prompts("tifa:tifa.json") == [Prompt("coco_1", "A ring.", "coco")]


def test_science_t2i_asks_for_the_implicit_prompt(sets: Path) -> None:
    apple, ice = read_prompts("science-t2i:science-t2i-s.parquet")
    assert (apple.id, apple.text, apple.category, apple.difficulty) == ("0000", "An unripe apple.", "biology", "any")
    assert json.loads(ice.truth) == {"explicit": "Melting ice.", "superficial": "Hard ice.", "law": "melting"}


def test_datasets_reads_files_and_folders_with_splits(here: Path) -> None:
    import datasets

    table = pa.table({"caption": ["a ring", "a cross "], "category": ["x", None], "image": [b"1", b"2"]})
    for name in ("one.parquet", "split/train.parquet", "split/test.parquet"):
        Path(name).parent.mkdir(exist_ok=True)
        pq.write_table(table, name)
    Path("one.csv").write_text("caption\na ring\na cross\n")
    saved = datasets.DatasetDict({"train": datasets.Dataset(table), "test": datasets.Dataset(table.slice(0, 1))})
    saved.save_to_disk("saved")
    ring, cross = Prompt("train-000000", "a ring", "x"), Prompt("train-000001", "a cross")
    assert read_prompts("datasets:one.parquet#caption") == [ring, cross]
    assert [prompt.text for prompt in read_prompts("datasets:one.csv#caption")] == ["a ring", "a cross"]
    for source in ("datasets:split#caption", "datasets:saved#caption"):
        assert [prompt.text for prompt in load_prompts(source, "improve")] == ["a ring", "a cross"]
        assert load_prompts(source, "test")[0] == Prompt("test-000000", "a ring", "x", split="test")


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="prompts 'no/such'"):
        read_prompts("datasets:no/such#text")


def test_the_tiers_count_claims() -> None:
    assert [tier(claims) for claims in range(7)] == ["any", "easy", "easy", "medium", "medium", "hard", "hard"]


def test_loading_prompts_imports_no_torch(sets: Path) -> None:
    code = "import sys; from unigap.prompt_sets.loading import load_prompts\n"
    code += "load_prompts('geneval:evaluation_metadata.jsonl', 'test'); load_prompts('shapes', 'test', 1)\n"
    code += "load_prompts('science-t2i:science-t2i-s.parquet', 'test')\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_takes_a_set_by_name(janus_folder: Path, here: Path) -> None:
    row = {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], "prompt": "a red circle"}
    Path("mine.jsonl").write_text(lines(row))
    options = ["--checkpoint", str(janus_folder), "--candidates", "2", "--out", "gap.json"]
    options += ["--external", "unigap.judges.RandomJudge"]
    assert main(["gap", "--prompts", "geneval:mine.jsonl", *options]) == 0
    generation = json.loads(Path("gap.json").read_text())["generation"]
    assert generation["colors"]["n"] == generation["easy"]["n"] == 2


# unigap prompts import


@pytest.mark.parametrize(
    "source",
    ["t2i-compbench:t2i_compbench", "geneval:evaluation_metadata.jsonl", "science-t2i:science-t2i-s.parquet",
     "dsg:dsg-1k-anns.csv", "tifa:tifa_v1.0_question_answers.json"],
)  # fmt: skip
def test_an_imported_set_is_the_set(sets: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "import", source, "--out", "mine.jsonl"]) == 0
    read = [prompt for prompt in read_prompts(source) if prompt.id != "color-train-002"]
    assert read_prompts("mine.jsonl") == read
    assert f"prompts: mine.jsonl ({len(read)})" in capsys.readouterr().out
    expect_error(main(["prompts", "import", source, "--out", "mine.jsonl"]), capsys, "'mine.jsonl' exists")


def test_import_shows_what_is_there_and_drops_what_both_splits_hold(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prompts", "import", "t2i-compbench:t2i_compbench", "--split", "train", "--out", "train.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "same  color-train-002 'a red car and a blue cup'  =  color-val-001 'A red car and a blue cup.'" in printed
    assert "left out: 1 training prompts" in printed
    assert [prompt.id for prompt in read_prompts("train.jsonl")] == [
        "color-train-000",
        "color-train-001",
        "spatial-train-000",
    ]


# As published


@needs_published
def test_the_published_t2i_compbench_is_read_whole(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"t2i-compbench:{PUBLISHED}"
    prompts = read_prompts(source)
    assert Counter((prompt.category, prompt.split) for prompt in prompts) == {
        (category, split): count
        for category in {prompt.category for prompt in prompts}
        for split, count in (("train", 700), ("val", 300))
    }
    assert len({prompt.category for prompt in prompts}) == 8
    patterned = ("spatial", "3d_spatial", "numeracy")
    assert all(prompt.truth for prompt in prompts if prompt.category in patterned)
    assert main(["prompts", "audit", source, source, "--out", "train.jsonl"]) == 0
    same = [line for line in capsys.readouterr().out.splitlines() if line.startswith("same")]
    assert Counter(line.split()[1].split("-")[0] for line in same) == {"shape": 4, "spatial": 2}
    assert main(["prompts", "audit", "train.jsonl", source]) == 0
    assert ": 0 the same, 0 nearly the same (>= 0.9), 0 repeated" in capsys.readouterr().out


@needs_published
def test_the_published_geneval_is_read_whole() -> None:
    assert PUBLISHED is not None
    prompts = read_prompts(f"geneval:{PUBLISHED.parent / 'geneval' / 'evaluation_metadata.jsonl'}")
    assert Counter(prompt.category for prompt in prompts) == {
        "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100
    }  # fmt: skip
    assert (prompts[0].id, prompts[-1].id) == ("00000", "00552")
