"""Prompts of one's own and no external judge: everything works at once, and what is left out is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import FICKLE, SUMMARY, expect_error, improve
from test_import_floors import IMPORTS

from unigap.__main__ import main
from unigap.callbacks import Guard
from unigap.cli.commands import model_choice
from unigap.cli.commands.model_choice import ModelChoice
from unigap.evaluation.probe_sources import ShapesPairs
from unigap.judges import OracleJudge
from unigap.pool import Pool
from unigap.report.run_folder.contents import read_run
from unigap.world import find_world, world_names

TRAIN = ["a ring of a circle", "square left of a blue ring ring", "two red", "above a small square"]
"""Words the small model has, in sentences that mean nothing in the embedded world."""
TEST = ["red ring ring", "three blue above"]
NEEDS_TRUTH = {"generation", "weak_generation", "judge_precision"}


@pytest.fixture
def own_prompts(here: Path) -> Path:
    """A working directory with two files of prompts."""
    (here / "train.txt").write_text("\n".join(TRAIN))
    (here / "test.txt").write_text("\n".join(TEST))
    return here


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gap.json").read_text())
    return found


# -- the core and its worlds


def test_only_evidence_and_the_worlds_themselves_import_a_world() -> None:
    knowing = [module for module, names in IMPORTS.items() for name in names if name.startswith("unigap.worlds.")]
    assert {module.split(".")[1] for module in knowing} == {"worlds"}


def test_a_world_is_found_by_its_name_and_its_classes_by_their_rooms() -> None:
    world = find_world("shapes")
    assert world_names() == ["shapes"] and world is not None and find_world("train.txt") is None
    assert isinstance(world.external(), OracleJudge) and isinstance(world.probe_source("validation", 1), ShapesPairs)
    from unigap import judges

    with pytest.raises(AttributeError, match=r"unigap\.judges.*NoJudge"):
        _ = judges.NoJudge


# -- unigap fit


def test_a_run_on_prompts_of_ones_own_asks_nobody_else(
    janus_folder: Path, own_prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = {"data.prompts": "train.txt", "data.eval_prompts": "test.txt", "model.init_args.external": "null"}
    measured = {**SUMMARY, "summary.folder": "runs/c_sft", "summary.per_cell": 2, "summary.prompts": "null"}
    flags = {
        **FICKLE,
        **mine,
        **measured,
        "regrow.plan.candidates": 8,
        "trainer.callbacks+": "unigap.callbacks.Gallery",
    }
    assert improve(janus_folder, "c_sft", flags) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "on 2 test prompts" in said and "No external judge was asked" in said
    assert "--model.init_args.external CLASS_PATH" in said
    pool = Pool.open("runs/c_sft/pool")
    assert {judgment.judge for judgment in pool.judgments()} == {"random"}
    assert [recipe["name"] for recipe in pool.recipe(0)["judges"]] == ["random"]
    run = read_run("runs/c_sft")
    assert run.summary.after.keys() == {"non_unification", "yes_rate"} and not run.rejudged
    assert all(one.truly_right is None for one in run.summary.rounds)
    assert {drawing.external for one in run.exhibits for drawing in (one.before, one.after)} == {None}
    assert not NEEDS_TRUTH & {name for row in json.loads(Path("runs/c_sft/curves.json").read_text()) for name in row}
    with next(Path("runs").rglob("metrics.csv")).open() as file:
        columns = next(csv.reader(file))
    assert "gap/non_unification/all" in columns and "gap/generation/all" not in columns
    assert main(["report", "runs/c_sft"]) == 0
    page = Path("runs/c_sft/report.html").read_text()
    assert "No external judge was asked" in page and "not asked" in page and "Non-unification" in page


@pytest.mark.parametrize("callback", ["Guard", "Retention", "Dynamics"])
def test_a_callback_that_needs_a_world_or_a_judge_says_what_to_give(
    callback: str, janus_folder: Path, own_prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = {"data.prompts": "train.txt", "data.eval_prompts": "test.txt", "model.init_args.external": "null"}
    flags = {**FICKLE, **mine, "trainer.callbacks+": f"unigap.callbacks.{callback}"}
    remedy = {"Guard": "set pairs", "Retention": "set quiz", "Dynamics": "set model.init_args.external"}[callback]
    expect_error(improve(janus_folder, "sft", flags), capsys, callback, remedy)


def test_a_guard_takes_the_known_pairs_of_the_world_it_trains_on() -> None:
    class Stage:
        class pool_data:
            world = find_world("shapes")

    pairs = Guard()._known_pairs(Stage())  # type: ignore[arg-type]
    assert isinstance(pairs, ShapesPairs) and (pairs.split, pairs.seed) == ("validation", 1)


# -- unigap gap


def test_the_gap_on_prompts_of_ones_own(
    janus_folder: Path, own_prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "gap",
        "--checkpoint",
        str(janus_folder),
        "--prompts",
        "test.txt",
        "--candidates",
        "2",
        "--out",
        "gap.json",
    ]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No external judge was asked" in said and "--external CLASS_PATH" in said
    assert figures(own_prompts).keys() == {"non_unification"}
    assert main([*words, "--external", "unigap.judges.RandomJudge", "--external.yes_rate", "0.9"]) == 0
    assert "No external judge" not in capsys.readouterr().out
    asked = figures(own_prompts)
    assert asked.keys() == {"non_unification"} | NEEDS_TRUTH and asked["generation"]["all"]["n"] == 4
    assert main([*words, "--external", "RandomJudge", "--dtype", "bfloat16", "--device", "cpu"]) == 0


# -- where a model runs


def test_the_gpu_is_the_default_where_there_is_one(janus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert model_choice.default_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert model_choice.default_device() == "cuda"
    # a device every machine has and nobody chooses
    monkeypatch.setattr(model_choice, "default_device", lambda: "meta")
    placed = {device: ModelChoice(str(janus_folder), device=device).load() for device in (None, "cpu")}
    assert [next(model.parameters()).device.type for model in placed.values()] == ["meta", "cpu"]


def test_the_precision_is_that_of_the_option(janus_folder: Path) -> None:
    model = ModelChoice(str(janus_folder), device="cpu", dtype="bfloat16").load()
    assert {parameter.dtype for parameter in model.trunk.parameters()} == {torch.bfloat16}


def test_the_pool_of_a_demonstration_finds_the_model_that_drew_it(small_demo: Path, janus_folder: Path) -> None:
    model, name = ModelChoice(device="cpu").load_for_pool(str(small_demo / "pool"))
    assert name == str(janus_folder)
    assert Pool.open(small_demo / "pool").model == model.drawing_digest()
