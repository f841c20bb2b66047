"""``unigap draw``: the best of N images with their seeds and verdicts, resumed, and a strip of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_pools import tree
from small_runs import expect_error, improve

from unigap.__main__ import main
from unigap.judges import RandomJudge
from unigap.loop import best_of as sampling_loop
from unigap.loop.best_of import best_of
from unigap.records import Prompt

TEXT = "a large red circle"


def draw(checkpoint: Path, prompt: str = TEXT, **options: object) -> int:
    """Draw few images of a prompt."""
    given = {"checkpoint": checkpoint, "n": 4, "keep": 2, "out": "out", **options}
    return main(["draw", prompt, *(word for name, value in given.items() for word in (f"--{name}", str(value)))])


def table(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_images_are_kept_with_their_seeds_and_verdicts(
    janus_folder: Path, janus: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(janus_folder) == 0
    printed = capsys.readouterr()
    assert "prompts: 1; images sampled: 4" in printed.out and "images: out (2)" in printed.out
    assert "next: unigap gap" in printed.err
    rows = table("out")
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"] and {row["prompt"] for row in rows} == {TEXT}
    kept = [row for row in rows if row["file"]]
    assert {row["file"] for row in kept} == {path.name for path in Path("out").glob("*.png")}
    assert len(kept) == 2
    least = min(float(row["logit"]) for row in kept)
    assert all(float(row["logit"]) <= least for row in rows if not row["file"])
    assert all(row["file"] == f"0001-a-large-red-circle-{row['seed']}.png" for row in kept)
    images = {str(shown.candidate.seed): shown for shown in best_of(janus, [Prompt(TEXT, TEXT)], n=4, keep=2)}
    assert images.keys() == {row["seed"] for row in kept}
    for row in kept:
        written = np.asarray(Image.open(Path("out") / row["file"])).astype(int)
        assert abs(written - np.asarray(images[row["seed"]].image)).max() <= 1
        assert float(row["p_yes"]) == pytest.approx(images[row["seed"]].judgment.p_yes, abs=1e-4)


def test_best_of_orders_by_the_judge(janus: Any) -> None:
    prompts = [Prompt("a", TEXT), Prompt("b", "a small blue square")]
    kept = best_of(janus, prompts, n=5, keep=3, judge=RandomJudge())
    assert [shown.candidate.prompt.id for shown in kept] == ["a"] * 3 + ["b"] * 3
    everything = best_of(janus, prompts, n=5, keep=5, judge=RandomJudge())
    for name in "ab":
        logits = sorted((i.judgment.logit for i in everything if i.candidate.prompt.id == name), reverse=True)
        assert [shown.judgment.logit for shown in kept if shown.candidate.prompt.id == name] == logits[:3]


def test_a_file_of_prompts_is_continued_where_it_stopped(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("prompts.txt").write_text(
        "a large red circle\na small blue square\na large red circle and a small blue square\n"
    )
    assert draw(janus_folder, "prompts.txt", out="whole") == 0
    monkeypatch.setattr(sampling_loop, "IMAGES_PER_BATCH", 4)
    whole = sampling_loop.judged_images

    def killed(*words: Any) -> Any:
        found = whole(*words)
        yield next(found)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unigap.cli.commands.draw.judged_images", killed)
        assert draw(janus_folder, "prompts.txt") == 130
    assert len(list(Path("out").glob("*.png"))) == 2 and not Path("out/images.csv").exists()
    first = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    with Path("out/verdicts.jsonl").open("a") as file:
        file.write('{"id": "cut o')  # as a full disk leaves it
    assert draw(janus_folder, "prompts.txt") == 0
    assert first.items() <= {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}.items()
    assert [row["file"] for row in table("out")] == [row["file"] for row in table("whole")]
    before = tree(Path("out"))
    assert draw(janus_folder, "prompts.txt") == 0
    assert tree(Path("out")) == before
    next(Path("out").glob("*.png")).unlink()
    assert draw(janus_folder, "prompts.txt") == 0
    assert tree(Path("out")).keys() == before.keys()


def test_images_of_another_command_stay(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(janus_folder) == 0
    before = tree(Path("out"))
    for told, prompt, options in (
        ("another seed", TEXT, {"seed": 1}),
        ("another keep, n", TEXT, {"n": 2, "keep": 1}),
        ("another prompt", "a small blue square", {}),
    ):
        capsys.readouterr()
        expect_error(draw(janus_folder, prompt, **options), capsys, told, "'out'")
    assert tree(Path("out")) == before


def test_a_run_is_shown_before_and_after(
    janus_folder: Path, janus: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steep = {"model.init_args.lr": 0.05, "model.init_args.warmup_steps": 0}
    assert improve(janus_folder, "random_judge", steep) == 0
    capsys.readouterr()
    assert main(["draw", TEXT, "--n", "3", "--keep", "1", "--run", "runs/random_judge", "--out", "strip"]) == 0
    printed = capsys.readouterr()
    assert "strip: strip/strip.png" in printed.out and "next: unigap gap --checkpoint runs/random_judge" in printed.err
    rows = json.loads(Path("strip/verdicts.json").read_text())
    before, after = ([row for row in rows if row["model"] == name] for name in ("before", "after"))
    assert [row["seed"] for row in before] == [row["seed"] for row in after]
    base = best_of(janus, [Prompt(TEXT, TEXT)], n=3, keep=3)
    assert {row["seed"]: pytest.approx(row["logit"], abs=1e-3) for row in before} == {
        shown.candidate.seed: shown.judgment.logit for shown in base
    }
    assert all(old["logit"] != new["logit"] for old, new in zip(before, after, strict=True))
    with Image.open("strip/strip.png") as strip:
        assert strip.width > 300
    assert len(list(Path("strip").glob("before-*.png"))) == len(list(Path("strip").glob("after-*.png"))) == 1
