"""Arms that are measured side by side: what ends them, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evidence.results_file import ResultsFile

SLEEPERS = """
import functools, signal, sys, time
from pathlib import Path
from evidence import arms
from unigap.__main__ import answer

def deaf():
    # a Trainer, too, takes the signal for itself
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("deaf").touch()
    time.sleep(600)

def measure(words):
    sleeper = functools.partial(time.sleep, 600)
    named = {"quick": functools.partial(dict, ready=1), "deaf": deaf, "one": sleeper, "two": sleeper}
    arms.run_arms(Path("work.parquet"), {}, named, 2)

if __name__ == "__main__":
    sys.exit(answer([], measure))
"""


ADDER = """
import sys
from pathlib import Path
from evidence.results_file import ResultsFile
for number in range(20):
    ResultsFile(Path("results.parquet")).add(f"{sys.argv[1]}-{number}", {"number": number})
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stopped_measurement_leaves_nobody_behind_and_continues(here: Path) -> None:
    (here / "sleepers.py").write_text(SLEEPERS)
    run = subprocess.Popen([sys.executable, "sleepers.py"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    file = ResultsFile(here / "work.parquet")
    while not ("quick" in file.results() and (here / "deaf").exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children_of(run.pid)
    assert len(workers) >= 2
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 143
    assert "error: stopped by SIGTERM; nothing is lost, the same command continues" in said and "Traceback" not in said
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert file.results() == {"quick": {"ready": 1}}


def test_two_commands_add_to_one_file_and_lose_nothing(here: Path) -> None:
    file = ResultsFile(here / "results.parquet")
    file.begin({"setting": 1})
    runs = [subprocess.Popen([sys.executable, "-c", ADDER, name], cwd=here, env=ENVIRONMENT) for name in "ab"]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert file.results().keys() == {f"{name}-{number}" for name in "ab" for number in range(20)}
    with pytest.raises(ValueError, match=r"another experiment \(setting differ\)"):
        file.begin({"setting": 2})


def test_a_torn_results_file_is_named(here: Path) -> None:
    file = ResultsFile(here / "results.parquet")
    file.begin({})
    file.path.write_bytes(file.path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"results\.parquet is not a whole Parquet file"):
        file.results()
