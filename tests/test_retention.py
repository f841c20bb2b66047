"""Understanding beside generation: POPE's questions about renders and about files, at every validation of a run."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from small_runs import CHECKPOINT, CONFIGS, FICKLE, POOL, TRAINER, expect_error, same, state

from unigap.__main__ import main
from unigap.callbacks import Retention
from unigap.evaluation.probe_sources import ShapesPairs
from unigap.evaluation.quizzes import PairsQuiz, PopeFiles, Quiz, ShapesQuiz, quiz_scores
from unigap.files.images import to_image
from unigap.worlds.shapes.grammar import Thing, parse
from unigap.worlds.shapes.oracle import read
from unigap.worlds.shapes.prompt_sets import descriptions
from unigap.worlds.shapes.quiz import NEGATIVES
from unigap.worlds.shapes.scenes import imagine, render

LAST = Path("runs/sft/checkpoints/last.ckpt")
FIGURES = {"accuracy", "precision", "recall", "f1", "yes_ratio"}


@pytest.fixture(scope="module")
def quiz() -> Quiz:
    """Questions about forty renders."""
    return ShapesQuiz(pictures=40).load()


def claim(quiz: Quiz, number: int) -> Any:
    return parse(quiz.questions[number].removeprefix("Does this image describe ").removesuffix("?"))


def test_a_yes_is_true_of_its_picture_and_a_no_has_one_object_that_is_not_there(quiz: Quiz) -> None:
    readings = read(quiz.pixels_PCHW)
    for number, (picture, truth) in enumerate(zip(quiz.picture_Q.tolist(), quiz.truth_Q.tolist(), strict=True)):
        assert readings[picture].shows(claim(quiz, number)) == truth
    for picture in range(40):
        there, *absent = [claim(quiz, 4 * picture + i) for i in range(4)]
        for description in absent:
            changed = [(a, b) for a, b in zip(there.things, description.things, strict=True) if a != b]
            assert len(changed) == 1 and changed[0][1] not in there.things


def test_each_setting_is_half_yes_and_asks_about_every_picture(quiz: Quiz) -> None:
    assert tuple(quiz.settings) == NEGATIVES == ("random", "popular", "adversarial")
    for of in quiz.settings.values():
        assert len(of) == 80 and quiz.truth_Q[of].float().mean() == 0.5
        assert Counter(quiz.picture_Q[of].tolist()) == Counter({picture: 2 for picture in range(40)})
    first, second, third = (set(of[~quiz.truth_Q[of]].tolist()) for of in quiz.settings.values())
    assert not first & second and not second & third and not first & third


def test_popular_objects_are_frequent_and_adversarial_ones_stand_beside_what_is_there(quiz: Quiz) -> None:
    every = [d for tier in ("easy", "medium", "hard") for d in descriptions("color", tier, "validation")]
    seen = Counter(thing for d in every for thing in set(d.things))
    beside = Counter((a, b) for d in every for a in set(d.things) for b in set(d.things) if a != b)

    def added(name: str) -> list[tuple[tuple[Thing, ...], Thing]]:
        found = []
        for number in quiz.settings[name].tolist():
            there = claim(quiz, number - number % 4).things
            found += [(there, thing) for thing in claim(quiz, number).things if thing not in there]
        return found

    def near(there: Sequence[Thing], thing: Thing) -> int:
        return sum(beside[thing, other] for other in set(there))

    fame = {name: sum(seen[thing] for _, thing in added(name)) / 40 for name in NEGATIVES}
    company = {name: sum(near(*pair) for pair in added(name)) / 40 for name in NEGATIVES}
    assert fame["popular"] > fame["random"] and company["adversarial"] > company["random"]
    for there, thing in added("popular"):
        assert sum(seen[other] > seen[thing] for other in seen if other not in there) < 3
    for there, thing in added("adversarial"):
        assert sum(near(there, other) > near(there, thing) for other in seen if other not in there) < 3


def test_a_quiz_is_the_same_every_time_and_another_for_another_seed(quiz: Quiz) -> None:
    again, other = ShapesQuiz(pictures=40).load(), ShapesQuiz(pictures=40, seed=1).load()
    assert again.questions == quiz.questions != other.questions
    assert torch.equal(again.pixels_PCHW, quiz.pixels_PCHW)


def test_the_figures_are_popes() -> None:
    truth_Q = torch.tensor([True] * 5 + [False] * 5)
    logit_Q = torch.tensor([1.0, 1, 1, -1, -1, 1, -1, -1, -1, -1])
    quiz = Quiz(torch.zeros(5, 3, 1, 1), torch.arange(10) % 5, ("?",) * 10, truth_Q, {"a": torch.arange(10)})
    found = quiz_scores(quiz, logit_Q)["a"]
    assert found.keys() == FIGURES
    precision, recall = 3 / 4, 3 / 5
    expected = {"accuracy": 0.7, "precision": precision, "recall": recall, "yes_ratio": 0.4}
    expected["f1"] = 2 * precision * recall / (precision + recall)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert 0 <= found[name].low <= value <= found[name].high <= 1


def test_answers_are_those_of_the_model_asked_directly(janus: Any, quiz: Quiz) -> None:
    expected = [
        janus.judge_logit(quiz.pixels_PCHW[picture][None], [[question]])[0, 0].item()
        for picture, question in zip(quiz.picture_Q.tolist()[:9], quiz.questions, strict=False)
    ]
    for size in (7, 256):
        answers = quiz.answers(janus, size)
        assert answers.shape == (160,) and answers[:9].tolist() == pytest.approx(expected, abs=1e-5)


def test_known_pairs_are_asked_in_the_papers_words() -> None:
    quiz, exam = PairsQuiz(ShapesPairs(), 10).load(), ShapesPairs().load(10)
    assert quiz.questions == tuple(f"Does this image describe {claim}?" for claim in exam.claims)
    assert torch.equal(quiz.truth_Q, exam.truth_B) and torch.equal(quiz.settings["pairs"], torch.arange(10))


# POPE's files


def pope(folder: Path, name: str = "pope.json", rows: Sequence[Mapping[str, object]] = ()) -> str:
    rng = random.Random(0)
    folder.mkdir(exist_ok=True)
    for image, text in (("a.png", "a red circle"), ("b.png", "two green squares")):
        to_image(render(imagine(parse(text), rng))).save(folder / image)
    rows = rows or [
        {"question_id": 1, "image": "a.png", "text": "Does this image describe a red circle?", "label": "yes"},
        {"question_id": 2, "image": "a.png", "text": "Does this image describe a blue ring?", "label": "no"},
        {"question_id": 3, "image": "b.png", "text": "Does this image describe two green squares?", "label": "yes"},
    ]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def test_popes_files_are_read_as_published(tmp_path: Path) -> None:
    files = {"random": pope(tmp_path / "x"), "popular": pope(tmp_path / "y")}
    quiz = PopeFiles(files, images=str(tmp_path / "x"), side=32, n=2).load()
    assert quiz.pixels_PCHW.shape == (1, 3, 32, 32), "a picture is read once"
    assert quiz.picture_Q.tolist() == [0, 0, 0, 0] and quiz.truth_Q.tolist() == [True, False, True, False]
    assert {name: of.tolist() for name, of in quiz.settings.items()} == {"random": [0, 1], "popular": [2, 3]}
    assert quiz.questions[1] == "Does this image describe a blue ring?"
    assert read(quiz.pixels_PCHW)[0].shows(parse("a red circle"))
    assert PopeFiles(files, side=16).load().pixels_PCHW.shape == (4, 3, 16, 16), "each beside its own file"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "a.png", "text": "?"}, "line 1: 'label' must be a non-empty string, got nothing"),
        ({"image": "a.png", "text": "?", "label": "maybe"}, "line 1: 'label' must be yes or no, got 'maybe'"),
        ({"image": "nowhere.png", "text": "?", "label": "no"}, r"image '.*nowhere\.png': no such file"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused(tmp_path: Path, row: dict[str, str], reason: str) -> None:
    path = pope(tmp_path / "x", "bad.json", [row])
    with pytest.raises(ValueError, match=reason):
        PopeFiles({"random": path}).load()


def test_files_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    pope(tmp_path / "x")
    for data, reason in ((b"", "holds no question"), (b"{\n", "line 1: not JSON"), (b"\xff", "not UTF-8 at byte 0")):
        (tmp_path / "x" / "bad.json").write_bytes(data)
        with pytest.raises(ValueError, match=reason):
            PopeFiles({"random": str(tmp_path / "x" / "bad.json")}).load()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "x" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png' cannot be read"):
        PopeFiles({"random": str(tmp_path / "x" / "pope.json")}).load()


# Runs


def run(checkpoint: Path, retention: Mapping[str, Any] | None, flags: Mapping[str, object] | None = None) -> int:
    """Runs sft.yaml in small with or without the callback; returns the exit status."""
    config = yaml.safe_load((CONFIGS / "sft.yaml").read_text())
    callback = {"class_path": "unigap.callbacks.Retention", "init_args": retention}
    config["trainer"]["callbacks"] = [callback] if retention is not None else []
    Path("config.yaml").write_text(yaml.safe_dump(config))
    every = {**TRAINER, **POOL, **FICKLE, CHECKPOINT: checkpoint, **(flags or {})}
    return main(["fit", "--config", "config.yaml", *(word for k, v in every.items() for word in (f"--{k}", str(v)))])


def shapes(pictures: int = 10, **more: object) -> dict[str, object]:
    return {"quiz": {"class_path": "unigap.evaluation.quizzes.ShapesQuiz", "init_args": {"pictures": pictures, **more}}}


def curves(folder: str = "runs/sft/logs/version_0") -> list[dict[str, float]]:
    """The rows of the log in which the quiz was asked."""
    with (Path(folder) / "metrics.csv").open() as file:
        rows = [
            {k: float(v) for k, v in row.items() if k.startswith("retention/") and v} for row in csv.DictReader(file)
        ]
    return [row for row in rows if row]


def test_the_quiz_changes_nothing_of_the_run(janus_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    found = []
    for name, retention in (("with", shapes()), ("without", None)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert run(janus_folder, retention, {"trainer.max_epochs": 1}) == 0
        found.append((state(LAST), Path("runs/sft/rows.jsonl").read_text()))
    assert same(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_a_run_tells_what_it_keeps_also_when_resumed(janus_folder: Path, here: Path, capsys: Any) -> None:
    # steep enough to spoil an untrained judge
    steep = {"model.init_args.lr": 0.05, "model.init_args.warmup_steps": 0}
    assert run(janus_folder, shapes(), {**steep, "trainer.max_epochs": 1}) == 0
    assert run(janus_folder, shapes(), {**steep, "ckpt_path": LAST}) == 0
    rows = curves() + curves("runs/sft/logs/version_1")
    assert len(rows) == 2
    names = {f"retention/{setting}/{figure}" for setting in NEGATIVES for figure in FIGURES | {"accuracy_change"}}
    for row in rows:
        # who never says yes has no precision
        assert row.keys() <= names and {name for name in names if "precision" not in name} <= row.keys()
        assert all(0 <= row[f"retention/{setting}/accuracy"] <= 1 for setting in NEGATIVES)
    for setting in NEGATIVES:
        start = [row[f"retention/{setting}/accuracy"] - row[f"retention/{setting}/accuracy_change"] for row in rows]
        assert start[0] == pytest.approx(start[1]), "one start for all validations"
    capsys.readouterr()
    flags = {**steep, "ckpt_path": LAST, "trainer.max_epochs": 3}
    expect_error(run(janus_folder, shapes(seed=1), flags), capsys, "Retention.quiz", "was None and is 1")


def test_validating_asks_the_quiz_of_a_file(janus_folder: Path, here: Path) -> None:
    init_args = {"files": {"mine": pope(here / "x")}, "side": 32}
    quiz = {"quiz": {"class_path": "unigap.evaluation.quizzes.PopeFiles", "init_args": init_args}}
    config = yaml.safe_load((CONFIGS / "sft.yaml").read_text())
    config["trainer"]["callbacks"] = [{"class_path": "unigap.callbacks.Retention", "init_args": quiz}]
    Path("config.yaml").write_text(yaml.safe_dump(config))
    every = {**TRAINER, **POOL, CHECKPOINT: janus_folder, "model.init_args.eval_plan.candidates": 1}
    words = [word for name, value in every.items() for word in (f"--{name}", str(value))]
    assert main(["validate", "--config", "config.yaml", *words]) == 0
    (row,) = curves()
    assert "retention/mine/accuracy" in row and "retention/mine/accuracy_change" not in row


def test_a_run_that_could_never_be_asked_is_refused(janus_folder: Path, here: Path, capsys: Any) -> None:
    flags = {"trainer.limit_val_batches": 0}
    expect_error(run(janus_folder, shapes(), flags), capsys, "Retention asks at every validation", "limit_val_batches")
    missing = {
        "quiz": {"class_path": "unigap.evaluation.quizzes.PopeFiles", "init_args": {"files": {"random": "nope.json"}}}
    }
    expect_error(run(janus_folder, missing), capsys, "nope.json", "no such file")
    assert not list(here.rglob("*.parquet"))


def test_a_quiz_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        Retention(batch_size=0)
    with pytest.raises(ValueError, match="pictures must be >= 1, got 0"):
        ShapesQuiz(pictures=0)
    with pytest.raises(ValueError, match="at least one file"):
        PopeFiles({})
    with pytest.raises(ValueError, match="n must be >= 2, got 1"):
        PairsQuiz(ShapesPairs(), 1)
