"""The configs for published models run a step on small ones, with nothing changed but what a small machine lacks."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from small_runs import state

from unigap.__main__ import main
from unigap.pool import Pool

CONFIGS = Path(__file__).parents[1] / "configs"
STAGES = ("sft", "dpo", "c_sft", "c_dpo")
Pair = tuple[str, ...]
JANUS_PRO = [(f"janus_pro/{stage}", f"janus_pro/{size}") for size in ("1b", "7b") for stage in STAGES]
BEST = [("janus_pro/best", "janus_pro/1b"), ("janus_pro/best", "janus_pro/7b_lora")]
ONE_GPU = [
    ("janus_pro/c_sft", "janus_pro/1b_24gb"),
    ("janus_pro/sft", "janus_pro/1b_full_24gb"),
    ("janus_pro/best", "janus_pro/7b_48gb"),
    ("janus_pro/c_dpo", "janus_pro/7b_80gb"),
]
GRPO: list[tuple[str, ...]] = [("janus_pro/1b_grpo",), ("janus_pro/7b_grpo",)]
EMU3 = [("emu3/sft", "emu3/gen"), ("emu3/dpo", "emu3/gen")]
SMALL = {"janus_pro": "janus_folder", "emu3": "emu3_folder"}
PROMPTS = {
    "color_train": ["a red circle", "a blue square", "a green triangle"],
    "numeracy_train": ["two red circles", "three blue squares", "six rings"],
    "color_val": ["a black cross"],
}


def settings(*configs: str) -> dict[str, Any]:
    """Configs laid over each other, mapping by mapping."""
    found: dict[str, Any] = {}
    for config in configs:
        lay_over(found, yaml.safe_load((CONFIGS / f"{config}.yaml").read_text()))
    return found


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            lay_over(below[name], value)
        else:
            below[name] = value


def named(pair: Pair) -> list[str]:
    """The options that name two configs."""
    return [word for name in pair for word in ("--config", str(CONFIGS / f"{name}.yaml"))]


def smaller(pair: Pair, checkpoint: Path) -> dict[str, object]:
    """All that is changed: whose weights and verdicts, whose prompts, one process without a GPU, one step."""
    found = settings(*pair)
    sharded = found["trainer"].get("strategy", "ddp") != "ddp"
    judge = found["model"]["init_args"].get("external")
    judged = {"checkpoint": checkpoint, **({"dtype": "float32"} if pair in ONE_GPU else {})} if judge else {}
    one_process = {"devices": 1, "strategy.init_args.data_parallel_size": 1} if sharded else {}
    trainer = {"accelerator": "cpu", "max_steps": 1, "log_every_n_steps": 1, "enable_progress_bar": "false"}
    return {
        "model.init_args.model.init_args.checkpoint": checkpoint,
        **{f"model.init_args.external.init_args.{name}": value for name, value in judged.items()},
        # an untrained judge says the same of every drawing
        "model.init_args.judge": "unigap.judges.RandomJudge",
        "data.init_args.prompts": "t2i-compbench:prompts",
        "data.init_args.eval_prompts": "t2i-compbench:prompts",
        **{f"trainer.{name}": value for name, value in {**trainer, **one_process}.items()},
    }


@pytest.fixture
def place(here: Path) -> Iterator[Path]:
    """A folder with prompts; the process group and its variables are gone afterwards."""
    (here / "prompts").mkdir()
    for name, lines in PROMPTS.items():
        (here / "prompts" / f"{name}.txt").write_text("\n".join(lines))
    before = dict(os.environ)
    yield here
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def lend_bitsandbytes(patch: pytest.MonkeyPatch) -> None:
    """Let configs name the 8-bit optimizer where it is not installed; it is torch's AdamW then."""
    if importlib.util.find_spec("bitsandbytes") is None:
        package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
        optim.AdamW8bit = type("AdamW8bit", (torch.optim.AdamW,), {"__module__": optim.__name__})  # type: ignore[attr-defined]
        package.optim = optim  # type: ignore[attr-defined]
        for module in (package, optim):
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
            patch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("pair", [*JANUS_PRO, *BEST, *ONE_GPU, *GRPO, *EMU3], ids="+".join)
def test_every_pair_of_configs_trains_a_step(
    pair: Pair, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "optimizer" in settings(*pair)["model"]["init_args"]:
        lend_bitsandbytes(monkeypatch)
    checkpoint: Path = request.getfixturevalue(SMALL[pair[0].partition("/")[0]])
    flags = [word for name, value in smaller(pair, checkpoint).items() for word in (f"--{name}", str(value))]
    assert main(["fit", *named(pair), "--run", "runs/one", *flags]) == 0
    run, found = place / "runs/one", settings(*pair)
    model = found["model"]["init_args"]["model"]
    module, _, family = model["class_path"].rpartition(".")
    options = {name: value for name, value in model["init_args"].items() if name in ("dtype", "lora_rank")}
    start = getattr(importlib.import_module(module), family)(str(checkpoint), **options)
    before, trained = start.state_dict(), state(run / "checkpoints" / "last.ckpt")
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, before[name[6:]].to(tensor.dtype))}
    assert moved == {f"model.{name}" for name in start.trainable_state()}
    assert {trained[name].dtype for name in moved} == {torch.float32}, "small steps are not rounded away"
    pool, plan = Pool.open(run / "pool"), found["regrow"]["plan"]
    assert pool.verify() == []
    drawn = pool.recipe(0)
    assert (drawn["candidates"], drawn["sampling"]["cfg"]) == (plan["candidates"], plan["sampling"]["cfg"])
    assert len(pool.candidates()) == 6 * plan["candidates"]


@pytest.mark.parametrize("pair", JANUS_PRO, ids="+".join)
def test_what_the_paper_says_is_what_the_configs_say(pair: Pair) -> None:
    found, (stage, size) = settings(*pair), (name.partition("/")[2] for name in pair)
    assert found["trainer"]["max_epochs"] == (20 if stage.endswith("sft") else 30)
    schedule = {"at_epochs": [10]} if stage.startswith("c_") else None
    assert found["model"]["init_args"].get("schedule") == schedule
    assert found["regrow"]["plan"]["candidates"] == 10 and found["regrow"]["plan"]["sampling"]["cfg"] == 5.0
    assert found["model"]["init_args"]["objective"]["class_path"].endswith("SFT" if stage.endswith("sft") else "DPO")
    checkpoint = found["model"]["init_args"]["model"]["init_args"]["checkpoint"]
    assert checkpoint == f"deepseek-community/Janus-Pro-{size.upper()}"


@pytest.mark.parametrize("pair", BEST, ids="+".join)
def test_the_recommended_recipe_is_the_same_at_every_size(pair: Pair) -> None:
    small, large = settings("shapes/best"), settings(*pair)
    assert small["model"]["init_args"]["objective"] == large["model"]["init_args"]["objective"]
    assert small["trainer"]["callbacks"][0]["class_path"] == large["trainer"]["callbacks"][0]["class_path"]
    for found in (small, large):
        schedule = found["model"]["init_args"]["schedule"]
        (middle,) = schedule["at_epochs"]
        assert schedule["redraw"] == "all" and 2 * middle == found["trainer"]["max_epochs"]
    assert 2 * large["regrow"]["plan"]["candidates"] == 10, "the paper's images, in two rounds"


@pytest.mark.parametrize("pair", GRPO, ids="+".join)
def test_online_learning_has_the_settings_of_the_field(pair: Pair) -> None:
    found = settings(*pair)
    stage, plan = found["model"]["init_args"], found["regrow"]["plan"]
    model = stage["model"]["init_args"]
    assert plan["candidates"] in (8, 16) and plan["sampling"]["cfg"] == 5.0
    assert stage["objective"]["init_args"]["kl"] == 0.01
    assert stage["lr"] == (1e-4 if model.get("lora_rank") == 16 else 1e-6)
    assert stage["schedule"] == {"every_n_epochs": 1, "redraw": "all", "prompts": 512 // plan["candidates"]}
    assert "judge" not in stage, "the model judges itself"


@pytest.mark.parametrize("pair", EMU3, ids="+".join)
def test_one_checkpoint_of_emu3_draws_judges_and_trains(pair: Pair) -> None:
    found = settings(*pair)["model"]["init_args"]
    assert found["model"]["init_args"]["checkpoint"] == "BAAI/Emu3-Gen-hf"
    assert "judge" not in found, "the model judges itself"


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the configs come to, as ``--print_config`` says it."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, "--print_config"])
    assert ended.value.code in (0, None)
    found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return found


def test_more_nodes_are_a_third_config(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = str(CONFIGS / "janus_pro/nodes_8.yaml")
    trainer = printed([*named(("janus_pro/c_sft", "janus_pro/7b")), "--config", nodes], capsys)["trainer"]
    sizes = trainer["strategy"]["init_args"]
    assert sizes["data_parallel_size"] == trainer["num_nodes"] * trainer["devices"] == 64
    assert sizes["tensor_parallel_size"] == 1 and sizes["save_distributed_checkpoint"]
    assert trainer["max_epochs"] == 20


@pytest.mark.parametrize("path", sorted((CONFIGS / "shapes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shapes_config_is_short_and_names_its_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(["--config", str(path)], capsys)
    assert found["run"] == f"runs/{path.stem}"
    assert found["trainer"]["reload_dataloaders_every_n_epochs"] == 1
    assert len(path.read_text().splitlines()) < 25


def test_no_config_is_forgotten() -> None:
    found = {f"{folder}/{path.stem}" for folder in SMALL for path in (CONFIGS / folder).glob("*.yaml")}
    assert found == {name for pair in (*JANUS_PRO, *BEST, *ONE_GPU, *GRPO, *EMU3) for name in pair} | {
        "janus_pro/nodes_8"
    }
