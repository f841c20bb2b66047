"""Two processes: exact after kills, one error line, and no process is left running."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kill_points import EXACT
from small_runs import CHECKPOINT, POOL, TRAINER, state, words

from unigap.models.janus import Janus
from unigap.objectives import GRPO
from unigap.pool import Pool

HERE = Path(__file__).parent
# a run that draws once, and one that draws again; SFT adds no path: its rows are those of C-SFT, its single round is
# that of DPO, and test_resume.py kills it in one process
STAGES = ("dpo", "c_sft")
DDP = {"trainer.devices": 2, "trainer.strategy": "ddp"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    quiet = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent))), **quiet, **more}


def test_two_processes_killed_and_continued_are_uninterrupted(janus_folder: Path, tmp_path: Path) -> None:
    shared = environment(WORLD_SIZE="2", TORCHELASTIC_RUN_ID="test")
    command = [sys.executable, str(HERE / "two_ranks.py"), str(janus_folder), str(tmp_path), *STAGES]
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank in range(2):
            log = stack.enter_context((tmp_path / f"log-{rank}.txt").open("w"))
            env = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
            stack.callback(ranks[rank].kill)
        for rank, process in enumerate(ranks):
            assert process.wait(900) == 0, (tmp_path / f"log-{rank}.txt").read_text()[-3000:]
    found = json.loads((tmp_path / "rank-0.json").read_text())
    # the kill points of each stage, and its signals
    assert len(found) >= 20
    assert {name: where for name, where in found.items() if where} == {}


def test_a_process_that_works_alone_outlives_the_time_out_of_the_group(janus_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "patient_ranks.py"), str(janus_folder), str(tmp_path), str(free_port())]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "measured" / "summary.json").is_file()


def test_two_processes_learn_online_what_one_does(janus_folder: Path, tmp_path: Path) -> None:
    """GRPO: the same groups, rewards and advantages, and in each step the same loss and gradient."""
    flags = {"trainer.limit_val_batches": 0, "data.exam_pictures": 0, "model.init_args.objective.init_args.kl": 0.1}
    flags |= {"model.init_args.schedule.prompts": 0, "trainer.callbacks+": "loss_file.LossFile"}
    flags |= {"model.init_args.lr": 1e-3, "model.init_args.warmup_steps": 0}
    runs = {"one": {"data.batch_size": 8}, "two": {**DDP, "data.batch_size": 4}}
    for name, more in runs.items():
        (tmp_path / name).mkdir()
        command = words("fit", "grpo", {**TRAINER, **POOL, CHECKPOINT: janus_folder, **flags, **more})
        done = subprocess.run(
            [sys.executable, "-m", "unigap", *command],
            cwd=tmp_path / name,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    rows, losses, weights = {}, {}, {}
    for name in runs:
        pool, run = Pool.open(tmp_path / name / "runs/grpo/pool"), tmp_path / name / "runs/grpo"
        newest = pool.rounds[-1]
        rows[name] = GRPO().rows(pool.candidates(newest), pool.logits("self", newest))
        files = sorted((tmp_path / name).glob("losses-*.json"))
        assert len(files) == {"one": 1, "two": 2}[name]
        losses[name] = np.mean([json.loads(file.read_text()) for file in files], 0)
        weights[name] = state(run / "checkpoints/last.ckpt")
    assert [row.candidate.id for row in rows["one"]] == [row.candidate.id for row in rows["two"]]
    assert max(row.candidate.round for row in rows["one"]) == 1, "the second round was drawn with trained weights"
    values = [[row.value for row in rows[name]] for name in runs]
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)
    assert len(losses["one"]) >= 4 and np.abs(losses["one"]).max() > 1e-3
    np.testing.assert_allclose(losses["two"], losses["one"], atol=1e-4)
    start = {f"model.{name}": tensor for name, tensor in Janus(str(janus_folder)).trainable_state().items()}
    moved, apart = (
        math.sqrt(sum((weights["one"][n] - other[n]).square().sum().item() for n in start))
        for other in (start, weights["two"])
    )
    # AdamW's first steps have the size of lr whatever the gradient's, so rounding shows where a gradient is almost 0
    assert moved > 0 and apart < 0.05 * moved


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.is_file() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def wait_for(what: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what.exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.1)


@pytest.mark.parametrize("lost", ["first", "second"])
def test_when_one_process_dies_the_other_ends_with_one_line(lost: str, janus_folder: Path, tmp_path: Path) -> None:
    flags = {**TRAINER, **POOL, CHECKPOINT: janus_folder, **EXACT, **DDP, "trainer.max_epochs": 1000}
    process = subprocess.Popen(
        [sys.executable, "-m", "unigap", *words("fit", "sft", flags)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(tmp_path / "runs/sft/checkpoints/last.ckpt", process)
        other = children(process.pid)
        assert len(other) == 1
        victim, survivor = (process.pid, other[0]) if lost == "first" else (other[0], process.pid)
        os.kill(victim, signal.SIGKILL)
        end = time.monotonic() + 60
        while alive(survivor) and time.monotonic() < end:
            time.sleep(0.2)
        assert not alive(survivor)
        status = process.wait(10)
        assert status != 0
        lines = process.communicate()[1].splitlines()
        if lost == "first" or status == 1:
            assert [line for line in lines if line.startswith("error: ")] == [lines[-1]]
            assert "--resume must" in lines[-1]
        assert not any("Traceback" in line for line in lines), lines[-5:]
    finally:
        for pid in (process.pid, *children(process.pid)):
            subprocess.run(["kill", "-9", str(pid)], capture_output=True)
    assert Pool.open(tmp_path / "runs/sft/pool").verify() == []
