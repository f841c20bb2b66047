"""The configs for Janus-Pro run a step on the small model, with nothing changed but what a small machine lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import state

from unigap.__main__ import main
from unigap.models.janus import Janus
from unigap.pool import Pool

CONFIGS = Path(__file__).parents[1] / "configs" / "janus_pro"
NAMES = [f"{size}_{stage}" for size in ("1b", "7b") for stage in ("sft", "dpo", "c_sft", "c_dpo")]
TRUNK = "model.net.model.language_model."
PROMPTS = {
    "color_train": ["a red circle", "a blue square", "a green triangle"],
    "numeracy_train": ["two red circles", "three blue squares", "six rings"],
    "color_val": ["a black cross"],
}


def smaller(config: str, checkpoint: Path) -> dict[str, object]:
    """All that is changed: whose weights and verdicts, whose prompts, one process without a GPU, one step."""
    one_process = {"devices": 1, "strategy.init_args.data_parallel_size": 1} if config.startswith("7b") else {}
    trainer = {"accelerator": "cpu", "max_steps": 1, "log_every_n_steps": 1, "enable_progress_bar": "false"}
    return {
        "model.init_args.model.init_args.checkpoint": checkpoint,
        "model.init_args.external.init_args.checkpoint": checkpoint,
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


def settings(config: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    return found


@pytest.mark.parametrize("config", NAMES)
def test_every_config_trains_a_step(config: str, janus_folder: Path, place: Path) -> None:
    flags = [word for name, value in smaller(config, janus_folder).items() for word in (f"--{name}", str(value))]
    assert main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *flags]) == 0
    run = place / "runs" / "janus_pro" / config
    dtype = settings(config)["model"]["init_args"]["model"]["init_args"].get("dtype", "float32")
    start, trained = Janus(str(janus_folder), dtype).state_dict(), state(run / "checkpoints" / "last.ckpt")
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, start[name[6:]].to(tensor.dtype))}
    assert moved == {name for name in trained if name.startswith((f"{TRUNK}layers.", f"{TRUNK}norm."))}
    assert {trained[name].dtype for name in moved} == {torch.float32}, "small steps are not rounded away"
    pool = Pool.open(run / "pool")
    assert pool.verify() == []
    assert (pool.recipe(0)["candidates"], pool.recipe(0)["sampling"]["cfg"]) == (10, 5.0)
    assert len(pool.candidates()) == 60


@pytest.mark.parametrize("config", NAMES)
def test_what_the_paper_says_is_what_the_config_says(config: str) -> None:
    found, stage = settings(config), config.partition("_")[2]
    assert found["trainer"]["max_epochs"] == (20 if stage.endswith("sft") else 30)
    assert found["regrow"].get("at_epochs") == ([10] if stage.startswith("c_") else None)
    assert found["model"]["init_args"]["objective"]["class_path"].endswith("SFT" if stage.endswith("sft") else "DPO")
    named = found["model"]["init_args"]["model"]["init_args"]["checkpoint"]
    assert named == f"deepseek-community/Janus-Pro-{config[:2].upper()}"


def test_more_nodes_are_a_second_config(capsys: pytest.CaptureFixture[str]) -> None:
    both = [word for name in ("7b_c_sft", "nodes_8") for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *both, "--print_config"])
    assert ended.value.code in (0, None)
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    sizes = trainer["strategy"]["init_args"]
    assert sizes["data_parallel_size"] == trainer["num_nodes"] * trainer["devices"] == 64
    assert sizes["tensor_parallel_size"] == 1 and not sizes["save_distributed_checkpoint"]
    assert trainer["max_epochs"] == 20


def test_no_config_is_forgotten() -> None:
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted([*NAMES, "nodes_8"])
