"""What tensors free stays with the process: a step does not take its pages from the system anew."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES = 25_000
FAULTS = f"""
import resource, torch
from unigap.__main__ import main

main(["pool", "verify", "nowhere"])
torch.set_num_threads(1)
for _ in range(2):  # at first the heap finds its size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros({PAGES} * 4096, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize(("policy", "kept"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "131072"}, False)])
def test_a_command_keeps_freed_memory_unless_the_environment_says_how(policy: dict[str, str], kept: bool) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run([sys.executable, "-c", FAULTS], env={**plain, **policy}, capture_output=True, text=True)
    assert (int(run.stdout) < PAGES) == kept, run.stderr
