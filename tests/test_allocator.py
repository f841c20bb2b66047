"""What tensors free stays with the process if its model is small and on a CPU, and returns to the system otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES = 25_000
FAULTS = f"""
import resource, sys, torch
from torch import nn
from unigap.models.engine.memory import settle_memory

settle_memory(nn.Linear(*map(int, sys.argv[1:]), device="meta"), "cpu")
torch.set_num_threads(1)
for _ in range(2):  # at first the heap finds its size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros({PAGES} * 4096, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


SMALL, LARGE = ("1000", "1000"), ("10000", "10000")
BY_HAND = {"MALLOC_MMAP_THRESHOLD_": "131072"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize(("sides", "policy", "kept"), [(SMALL, {}, True), (SMALL, BY_HAND, False), (LARGE, {}, False)])
def test_freed_memory_is_kept_for_a_small_model_unless_the_environment_says_how(
    sides: tuple[str, str], policy: dict[str, str], kept: bool
) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, *sides]
    run = subprocess.run(command, env={**plain, **policy}, capture_output=True, text=True)
    assert (int(run.stdout) < PAGES) == kept, run.stderr
