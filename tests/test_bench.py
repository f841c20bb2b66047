"""``unigap bench``: from picture to score, by small random networks of the real classes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmark_files import dsg_csv, lines
from chat_stub import ChatStub
from PIL import Image
from small_instruments import save_blip, save_depth, save_detr, save_owlv2
from small_pools import tree
from small_runs import expect_error
from small_vqa import save_clip, save_llava

from unigap.__main__ import main
from unigap.bench import run as bench_run
from unigap.pool import Pool
from unigap.pool.layout import round_folder

GENEVAL = lines(
    {"tag": "single_object", "include": [{"class": "circle", "count": 1}], "prompt": "a large red circle"},
    {
        "tag": "colors",
        "include": [{"class": "circle", "count": 1, "color": "red"}],
        "prompt": "a red circle",
    },
    {
        "tag": "position",
        "include": [{"class": "circle", "count": 1}, {"class": "square", "count": 1, "position": ["left of", 0]}],
        "exclude": [{"class": "computer mouse", "count": 1}],
        "prompt": "a blue square left of a red circle",
    },
)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of small networks by their kind."""
    import torch

    folder = tmp_path_factory.mktemp("networks")
    kinds: dict[str, Callable[[Path], None]] = {
        "detr": save_detr, "owl": save_owlv2, "depth": save_depth, "blip": save_blip, "clip": save_clip,
        "llava": save_llava,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, save in kinds.items():
            (folder / name).mkdir()
            save(folder / name)
    return folder


def words_of_geneval(networks: Path, janus_folder: Path, out: str) -> list[str]:
    """A small GenEval of the file in the working directory."""
    words = ["bench", "geneval", "geneval:geneval.jsonl", "--checkpoint", str(janus_folder), "--n", "2", "--out", out]
    words += ["--detector", "unigap.instruments.BoxDetector", "--detector.checkpoint", str(networks / "detr")]
    return [*words, "--colors", "unigap.instruments.ClipColors", "--colors.checkpoint", str(networks / "clip")]


@pytest.fixture(scope="module")
def measured(networks: Path, janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The result of a small GenEval, and what the command printed; copy it before changing it."""
    folder = tmp_path_factory.mktemp("geneval")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        Path("geneval.jsonl").write_text(GENEVAL)
        assert main(words_of_geneval(networks, janus_folder, "out")) == 0
    return folder / "out", out.getvalue(), err.getvalue()


@pytest.fixture
def geneval(here: Path, networks: Path, janus_folder: Path, measured: tuple[Path, str, str]) -> Callable[..., int]:
    """Run a small GenEval; the result of one lies in ``out``."""
    Path("geneval.jsonl").write_text(GENEVAL)
    shutil.copytree(measured[0], "out")
    return lambda *more, out="out": main([*words_of_geneval(networks, janus_folder, out), *more])


def rows_of(folder: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(folder) / "results.parquet").to_pylist()
    return rows


def test_geneval_from_picture_to_score(geneval: Callable[..., int], measured: tuple[Path, str, str]) -> None:
    _, printed, told = measured
    assert "GenEval: 6 images for 3 prompts" in printed and "page: out/README.md" in printed
    assert "next: unigap judge agreement out/pool" in told
    rows, scores = rows_of("out"), json.loads(Path("out/scores.json").read_text())
    assert len(rows) == 6 and {row["tag"] for row in rows} == {"single_object", "colors", "position"}
    assert scores["mean of tags"]["n"] == 6
    # the answers are what unigap score reads, and give the same figures
    assert same_by_score("geneval", "geneval:geneval.jsonl", folder="out") == scores
    for tag in ("single_object", "colors", "position"):
        values = [row["score"] for row in rows if row["tag"] == tag]
        assert scores[tag]["value"] == pytest.approx(sum(values) / len(values))
    assert rows[0]["score"] in (0, 1) and all(0 < row["judge_p_yes"] < 1 for row in rows)
    colored = [json.loads(row["answers"])["objects"] for row in rows if row["tag"] == "colors"]
    counted = [[thing for thing in found if thing["class"] == "circle" and thing["score"] > 0.3] for found in colored]
    # every box is a circle to this detector, and CLIP names its colour
    assert all(counted) and scores["single_object"]["value"] == 1 and scores["position"]["value"] == 0
    assert scores["colors"]["value"] == sum(found[0]["color"] == "red" for found in counted) / len(counted)
    page = Path("out/README.md").read_text()
    assert "# GenEval: " in page and "mean of tags" in page and "Mask2Former" in page
    assert all(row["picture"] in page for row in rows)


def test_pictures_are_the_drawings_of_the_pool(geneval: Callable[..., int], janus: Any) -> None:
    import torch

    from unigap.loop.sampling import stack_drawings

    candidates = {(c.prompt.id, c.index): c for c in Pool.open("out/pool").candidates()}
    for row in rows_of("out"):
        candidate = candidates[row["prompt_id"], row["index"]]
        assert row["seed"] == candidate.seed and str(candidate.seed) in row["picture"]
        with torch.no_grad():
            pixels = janus.decode(stack_drawings([candidate]))[0]
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
        with Image.open(Path("out") / row["picture"]) as image:
            assert abs(np.asarray(image, dtype=float) - levels).max() <= 1


def test_a_killed_command_continues(geneval: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").rename("whole")
    monkeypatch.setattr(bench_run, "MEASURED_AT_ONCE", 2)
    add, added = bench_run.BenchFolder.add, []

    def killed(self: Any, candidate: Any, *rest: Any) -> None:
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(candidate.id)
        add(self, candidate, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(bench_run.BenchFolder, "add", killed)
        assert geneval() == 130
    assert len(added) == 3 and not Path("out/scores.json").exists()
    drawn = tree(round_folder(Path("out/pool"), 0))
    with Path("out/measured.jsonl").open("a") as file:
        file.write('{"id": "cut o')  # as a full disk leaves it

    def drawn_again(*_: Any) -> None:
        raise AssertionError("an image was drawn again")

    with monkeypatch.context() as patch:
        patch.setattr("unigap.loop.round.sample_candidates", drawn_again)
        assert geneval() == 0
    assert drawn and tree(round_folder(Path("out/pool"), 0)) == drawn
    for name in ("scores.json", "results.parquet", "answers.jsonl", "README.md"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes(), name
    before = tree(Path("out"))
    assert geneval() == 0
    assert tree(Path("out")) == before


def test_other_instruments_measure_the_same_images(
    geneval: Callable[..., int], networks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owl = ["--detector", "unigap.instruments.NamedDetector", "--detector.checkpoint", str(networks / "owl")]
    assert geneval("--pool", "out/pool", *owl, out="other") == 0
    assert [row["seed"] for row in rows_of("out")] == [row["seed"] for row in rows_of("other")]
    assert not Path("other/pool").exists()
    capsys.readouterr()
    assert main(["judge", "agreement", "out/pool"]) == 0
    printed = capsys.readouterr().out
    assert "geneval-boxes-detr" in printed and "geneval-named-owl" in printed
    expect_error(geneval("--pool", "out/pool", "--seed", "1", out="third"), capsys, "another recipe")


def test_results_of_another_command_stay(geneval: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(Path("out"))
    for told, more in (("another seed", ("--seed", "1")), ("another benchmark", ("--detector.confidence", "0.2"))):
        capsys.readouterr()
        expect_error(geneval(*more), capsys, told, "'out'")
    assert tree(Path("out")) == before


# -- benchmarks of other kinds


def bench(name: str, prompts: str, checkpoint: Path | None, *more: str) -> int:
    model = ["--checkpoint", str(checkpoint)] if checkpoint else ["--model", "own_model.Painter"]
    words = ["bench", name, prompts, *model, "--n", "1", "--out", name]
    return main([*words, "--judge", "unigap.judges.RandomJudge", *more])


def same_by_score(name: str, prompts: str, *more: str, folder: str = "") -> dict[str, Any]:
    """The scores, which ``unigap score`` computes of the answers again."""
    place = Path(folder or name)
    scores: dict[str, Any] = json.loads((place / "scores.json").read_text())
    rule = "dsg" if name == "dpg" else name
    words = ["score", rule, "--prompts", prompts, "--answers", str(place / "answers.jsonl"), "--out", "again.json"]
    assert main([*words, *more]) == 0 and json.loads(Path("again.json").read_text()) == scores
    return scores


def test_compbench_measures_each_category_by_its_own_network(
    here: Path, networks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "docs" / "examples")  # its model reads any text
    texts = {
        "color": "a red circle and a blue square\na large red circle\n",
        "spatial": "a circle on the left of a square\n",
        "3d_spatial": "a circle in front of a square\n",
        "numeracy": "two circles\n",
        "non_spatial": "a red circle\n",
        "complex": "a small red circle\n",
    }
    Path("sets").mkdir()
    for category, text in texts.items():
        Path("sets", f"{category}_val.txt").write_text(text)
    parts = {"attributes": "BlipVqa", "detector": "NamedDetector", "depth": "DepthMap"}
    kinds = {"attributes": "blip", "detector": "owl", "depth": "depth", "similarity": "clip"}
    more = [word for option, name in parts.items() for word in (f"--{option}", f"unigap.instruments.{name}")]
    more += ["--similarity", "unigap.judges.ClipScoreJudge", "--similarity.threshold", "20"]
    more += [word for option, kind in kinds.items() for word in (f"--{option}.checkpoint", str(networks / kind))]
    status = bench("compbench", "t2i-compbench:sets", None, *more)
    told = capsys.readouterr().err
    assert status == 0, told
    assert "left out: 1 of color, 1 of complex" in told
    scores = same_by_score("compbench", "t2i-compbench:sets")
    assert scores.keys() == {*texts.keys() - {"complex"}, "mean of tags"}
    answers = {row["tag"]: json.loads(row["answers"]) for row in rows_of("compbench")}
    assert scores["color"]["value"] == pytest.approx(np.prod(answers["color"]["phrases"]))
    assert {thing["class"] for thing in answers["spatial"]["objects"]} <= {"circle", "square"}
    assert all("depth" in thing for thing in answers["3d_spatial"]["objects"]) and answers["3d_spatial"]["objects"]
    assert -1 <= answers["non_spatial"]["similarity"] <= 1


DSG = dsg_csv(
    ("x_1", "a red circle", "1", "0", "entity", "whole", "Does this figure show a circle?"),
    ("x_1", "a red circle", "2", "1", "attribute", "color", "Does this figure show red?"),
    ("y_2", "a blue square", "1", "0", "entity", "whole", "Does this figure show a square?"),
)
TIFA = [
    {"id": "coco_1", "caption": "a red circle", "question": "is this a circle?", "choices": ["yes", "no"],
     "answer": "yes", "element": "circle", "element_type": "object"},
    {"id": "coco_1", "caption": "a red circle", "question": "which color?", "choices": ["red", "blue", "green"],
     "answer": "red", "element": "red", "element_type": "color"},
]  # fmt: skip


def test_questions_are_asked_over_http_once(here: Path, janus_folder: Path) -> None:
    Path("dsg.csv").write_text(DSG)
    with ChatStub() as stub:
        vqa = ["--vqa", "unigap.judges.OpenAIJudge", "--vqa.url", stub.url, "--vqa.model", stub.model]
        assert bench("dsg", "dsg:dsg.csv", janus_folder, *vqa) == 0
        assert stub.asked_once
    same_by_score("dsg", "dsg:dsg.csv")


WISE = [
    {"Prompt": "a red circle", "Explanation": "a circle that is red", "Category": "c", "prompt_id": 1},
    {"Prompt": "a blue square", "Explanation": "a square that is blue", "Category": "c", "prompt_id": 500},
]


def test_wise_weighs_the_ratings_that_a_judge_writes(
    here: Path, networks: Path, janus_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wise.json").write_text(json.dumps(WISE))
    vqa = ["--vqa", "unigap.judges.VQAJudge", "--vqa.checkpoint", str(networks / "llava")]
    # a network of random weights writes no ratings
    expect_error(bench("wise", "wise:wise.json", janus_folder, *vqa), capsys, "replies without ratings")
    asked: list[str] = []

    def explain(self: Any, model: Any, requests: list[str], *_: Any) -> list[list[str]]:
        asked.extend(requests)
        return [["Consistency: 2\n**Realism**: 1\nAesthetic Quality: 0"], ["Consistency: 1\nRealism: 2"]][
            : len(requests)
        ]

    monkeypatch.setattr("unigap.judges.VQAJudge.explain", explain)
    assert bench("wise", "wise:wise.json", janus_folder, *vqa) == 0
    assert "1 of 2 replies lack a rating" in capsys.readouterr().err
    assert '"a square that is blue"' in asked[1]
    scores = same_by_score("wise", "wise:wise.json")
    assert scores["culture"]["value"] == pytest.approx(0.8) and scores["time"]["value"] == pytest.approx(0.55)
    assert scores["mean of tags"]["value"] == pytest.approx((0.4 * 0.8 + 0.167 * 0.55) / 0.567)
