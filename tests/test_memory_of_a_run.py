"""Saving and restoring hold one copy of the weights, and what loading frees goes back to the system."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = 48 * 2**20
"""Bytes of buffers, optimizer classes and the like, which do not grow with the model."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="reads /proc and tunes glibc")
def test_a_run_uses_the_memory_of_its_weights_and_moments_and_no_more(tmp_path: Path) -> None:
    script = Path(__file__).with_name("memory_of_a_run.py")
    # -P: a folder of tests is named theory
    run = subprocess.run([sys.executable, "-P", str(script), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["used"] > 10 * SMALL
    assert found["saving"] < SMALL, "no second copy of the file"
    # the weights were there before, the momentum came with the checkpoint
    assert found["restored"] < found["used"] / 2 + SMALL
    assert found["loaded"] < found["used"] / 2 + SMALL, "freed blocks are returned"
