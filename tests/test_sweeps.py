"""Every sweep file, by the real ``wandb sweep`` and ``wandb agent`` against a stand-in for the server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import CHECKPOINT, CONFIGS, POOL, TRAINER
from wandb_stub import Server, Sweep, serving

from unigap.pool import Pool

FILES = {path.stem: path for path in sorted((CONFIGS.parent / "sweeps").glob("*.yaml"))}
# the last point of each grid, and of one the first as well: every run costs ten seconds of a core
RUNS = {"dpo_beta_lr": 2, "candidates_threshold": 1, "replay_schedule": 1, "grpo_kl_clip": 1}
STAGES = {
    "dpo_beta_lr": "DPOStage",
    "candidates_threshold": "SFTStage",
    "replay_schedule": "CurriculumStage",
    "grpo_kl_clip": "GRPOStage",
}
# an untrained judge is never certain; this one accepts half of the images with certainty
COIN = {"model.init_args.judge": "unigap.judges.RandomJudge", "model.init_args.judge.init_args.yes_rate": 0.5}
SMALL = {**TRAINER, **POOL, **COIN, "trainer.max_epochs": 2, "data.exam_pictures": 0}
SMALL |= {"trainer.check_val_every_n_epoch": 1}
SECONDS = 600


@dataclass(frozen=True)
class Swept:
    """The results of the sweeps.

    Attributes:
        folder: The working directory of the agents.
        server: The stand-in with everything it received.
        sweeps: The sweep of each file.
    """

    folder: Path
    server: Server
    sweeps: Mapping[str, Sweep]


def in_small(path: Path, checkpoint: Path) -> str:
    """Return a sweep file with the options of a small run at the end of its command; nothing else is changed."""
    sweep = yaml.safe_load(path.read_text())
    flags = {**SMALL, CHECKPOINT: checkpoint}
    words = shlex.join([word for name, value in flags.items() for word in (f"--{name}", str(value))])
    shell = sweep["command"].index("-c") + 1
    assert sweep["command"][shell].endswith(' "$0" "$@"')
    sweep["command"][shell] = sweep["command"][shell].replace(' "$0" "$@"', f' {words} "$0" "$@"')
    return yaml.safe_dump(sweep)


@pytest.fixture(scope="module")
def swept(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """Run each sweep file; the agents work at the same time."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "configs").symlink_to(CONFIGS.parent)
    with serving() as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environment |= {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "CACHE", "DATA")}
        environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "false"}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

        started: list[subprocess.Popen[str]] = []

        def wandb(*words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "wandb", *words],
                env=environment,
                cwd=folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            started.append(process)
            return process

        try:
            paths = run_sweeps(wandb, folder, janus_folder)
        finally:
            for process in started:
                process.kill()
                process.communicate()
        yield Swept(folder, server, {name: server.sweeps[path.rpartition("/")[2]] for name, path in paths.items()})


def run_sweeps(wandb: Callable[..., subprocess.Popen[str]], folder: Path, checkpoint: Path) -> dict[str, str]:
    """Create a sweep from each file and run an agent for it; return the path of each sweep."""
    made = {}
    for name, path in FILES.items():
        (folder / f"{name}.yaml").write_text(in_small(path, checkpoint))
        made[name] = wandb("sweep", f"{name}.yaml")
    outputs = {name: process.communicate(timeout=SECONDS)[0] for name, process in made.items()}
    matches = {name: re.search(r"wandb agent (\S+)", text) for name, text in outputs.items()}
    assert all(matches.values()), outputs
    paths = {name: found[1] for name, found in matches.items() if found}
    agents = {name: wandb("agent", "--count", str(RUNS[name]), path) for name, path in paths.items()}
    for name, process in agents.items():
        output = process.communicate(timeout=SECONDS)[0]
        assert process.returncode == 0 and "error:" not in output, f"{name}: {output}"
    return paths


def setting(config: Mapping[str, Any], name: str) -> Any:
    """Return a value of a resolved config by its dotted name."""
    for part in name.split("."):
        config = config[part]
    return config


def meant(value: Any) -> Any:
    """Return a value of a sweep as the command line parses it."""
    return yaml.safe_load(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", FILES)
def test_a_sweep_trains_and_every_parameter_arrives(name: str, swept: Swept) -> None:
    shipped = yaml.safe_load(FILES[name].read_text())
    sweep = swept.sweeps[name]
    assert {key: value for key, value in sweep.config.items() if key != "command"} == {
        key: value for key, value in shipped.items() if key != "command"
    }
    assert len(sweep.handed_out) == RUNS[name]
    for run, point in sweep.handed_out.items():
        assert point.keys() == shipped["parameters"].keys()
        kept = swept.folder / "runs/sweeps" / sweep.name / run
        assert (kept / "checkpoints/last.ckpt").is_file() and (kept / "curves.json").is_file()
        saved = yaml.safe_load((kept / "checkpoints/config.yaml").read_text())
        logged = swept.server.runs[run]
        for parameter, value in point.items():
            assert setting(saved, parameter) == setting(logged, parameter) == meant(value), parameter
        assert {key: logged[key] for key in saved} == saved, "W&B knows the whole config"
        assert yaml.safe_load(swept.server.files[run]["unigap.yaml"]) == saved
        assert swept.server.groups[run] == STAGES[name]
        measured = [line for line in swept.server.history[run] if shipped["metric"]["name"] in line]
        assert len(measured) == 2, "the metric of the sweep is logged after every epoch"


def test_beta_and_lr_share_one_pool(swept: Swept) -> None:
    sweep = swept.sweeps["dpo_beta_lr"]
    folder = swept.folder / "runs/sweeps" / sweep.name
    assert Pool.open(folder / "pool").rounds == (0,)
    assert len(list(folder.rglob("pool.json"))) == 1


def test_candidates_and_schedule_draw_their_own(swept: Swept) -> None:
    for name in ("candidates_threshold", "replay_schedule"):
        sweep = swept.sweeps[name]
        folder = swept.folder / "runs/sweeps" / sweep.name
        for run, point in sweep.handed_out.items():
            asked = point.get("regrow.plan.candidates", POOL["regrow.plan.candidates"])
            assert Pool.open(folder / run / "pool").recipe(0)["candidates"] == asked
