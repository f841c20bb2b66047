"""One seed decides a run: another one gives another run, the same the same bits, and each part can be set apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_runs import FICKLE, improve, same, state

from unigap.callbacks import Dynamics, Regrow, RunSummary
from unigap.data import PoolData
from unigap.evaluation.probe_sources import ShapesPairs
from unigap.evaluation.quizzes import ShapesQuiz
from unigap.judges import FlippedJudge, RandomJudge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.pool import Pool
from unigap.seeds import PARTS, VARIABLE, run_seed, seed_of_part
from unigap.stages import SFTStage
from unigap.worlds.shapes.lesson_data import ShapesLessons

PAGE = Path(__file__).parents[1] / "docs" / "seeds.md"
FLAGS = {**FICKLE, "model.init_args.model.init_args.lora_rank": 2, "trainer.max_epochs": 1}


def test_another_seed_is_another_run_and_the_same_seed_the_same_bits(janus_folder: Path, here: Path) -> None:
    seeds = {"zero": 0, "seven": 7, "again": 7}
    for name, seed in seeds.items():
        assert improve(janus_folder, "c_sft", {**FLAGS, "seed_everything": seed, "run": name}) == 0
    weights = {name: state(here / name / "checkpoints/last.ckpt") for name in seeds}
    pools = {name: Pool.open(here / name / "pool") for name in seeds}
    assert same(weights["seven"], weights["again"]) and pools["seven"].state() == pools["again"].state()
    assert [pools[name].recipe(0)["seed"] for name in seeds] == [0, 7, 7]
    drawn = {name: [candidate.drawing.tolist() for candidate in pool.candidates()] for name, pool in pools.items()}
    assert drawn["zero"] != drawn["seven"] == drawn["again"]
    frozen = [name for name in weights["zero"] if name.endswith("lora_A.default.weight")]
    assert frozen and all(not weights["zero"][name].equal(weights["seven"][name]) for name in frozen)
    assert pools["seven"].recipe(0)["judges"][0]["seed"] == 7, "a control judge draws another coin"


def test_a_part_that_is_set_apart_stays_where_it_was_put(janus_folder: Path, here: Path) -> None:
    apart = {"regrow.plan.seed": 0, "model.init_args.judge.init_args.seed": 0, "trainer.max_epochs": 0}
    assert improve(janus_folder, "sft", {**FICKLE, **apart, "seed_everything": 0, "run": "zero"}) == 0
    assert improve(janus_folder, "sft", {**FICKLE, **apart, "seed_everything": 7, "run": "seven"}) == 0
    zero, seven = (Pool.open(here / name / "pool") for name in ("zero", "seven"))
    assert zero.state() == seven.state()


@pytest.mark.parametrize("seed", [0, 7])
def test_every_part_follows_by_its_rule(seed: int, janus: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(seed))
    stage = SFTStage(janus)  # type: ignore[arg-type]
    data, summary = PoolData(eval_per_cell=1), RunSummary()
    found = {
        "pool": Regrow().plan.seed,
        "predicted pool": stage.predict_plan.seed,
        "order": data.seed,
        "step": data.seed,
        "evaluation": stage.eval_plan.seed,
        "probe set": data.exam_seed,
        "test": summary.plan.seed,
        "test probe set": summary.exam_seed,
        "rendered pairs": ShapesPairs().seed,
        "quiz": ShapesQuiz().seed,
        "dynamics": Dynamics().seed,
        "judge": RandomJudge().seed,
        "lessons": ShapesLessons().seed,
    }
    assert found == {name: seed + PARTS[name].offset for name in found}
    assert FlippedJudge(SelfJudge()).seed == seed and RoundPlan().recipe(janus, [])["seed"] == seed  # type: ignore[arg-type]
    assert PARTS.keys() - found.keys() == {"initialisation", "captioned pairs"}
    assert Regrow(RoundPlan(seed=3)).plan.seed == RunSummary(plan=RoundPlan(seed=3)).plan.seed == 3


def test_the_seeds_of_seed_zero_are_those_of_old() -> None:
    assert run_seed() == 0
    offsets = {name: seed_of_part(name) for name in PARTS}
    assert {name: seed for name, seed in offsets.items() if seed} == {
        "evaluation": 20_000,
        "test": 1_000_000,
        "rendered pairs": 1,
    }


def test_the_page_shows_the_table() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = [row for row in rows if row[0] not in ("part", "---")]
    rules = {name: f"S + {part.offset:,}" if part.offset else "S" for name, part in PARTS.items()}
    assert shown == [
        (name, rules[name], f"`{part.option}`" if part.option else "nothing", part.decides)
        for name, part in PARTS.items()
    ]
