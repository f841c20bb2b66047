"""Arms that are measured side by side: what ends them, and what is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

SLEEPERS = """
import functools, signal, sys, time
from pathlib import Path
from unigap.__main__ import main
from unigap.evidence import arms
import unigap.__main__

def deaf():
    # a Trainer, too, takes the signal for itself
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("deaf").touch()
    time.sleep(600)

def measure(words):
    sleeper = functools.partial(time.sleep, 600)
    named = {"quick": functools.partial(dict, ready=1), "deaf": deaf, "one": sleeper, "two": sleeper}
    arms.run_arms(Path("work"), {}, named, 2)

if __name__ == "__main__":
    unigap.__main__._run = measure
    sys.exit(main(["evidence"]))
"""


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
    run = subprocess.Popen([sys.executable, "sleepers.py"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not all((here / name).exists() for name in ("work/quick.json", "deaf")) and time.monotonic() < deadline:
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
    assert {path.name for path in (here / "work").iterdir()} == {"recipe.json", "quick.json"}
