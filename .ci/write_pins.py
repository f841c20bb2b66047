"""Write constraints.txt and constraints-cuda.txt anew from setup.cfg, with hashes of every file of each release.

Pins that are there already stay as they are; options are handed to uv, for example ``--upgrade-package torch`` or
``--upgrade``. Run it as ``make pins PINS='--upgrade-package torch'``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS, CUDA = ROOT / "constraints.txt", ROOT / "constraints-cuda.txt"
OLDEST_PYTHON = "3.11.5"  # soupsieve wants no older 3.11
ELSEWHERE = re.compile(r"implementation_name == 'pypy'|sys_platform == 'emscripten'")
CUDA_NAMES = re.compile(r"(nvidia|cuda)-|triton==")
HEADERS = {
    PINS: (
        "# Exact versions of everything `make install` brings in, so that each clone gets the same environment, and",
        "# the hashes of all files of each release. setup.cfg says which ranges work; this file says which versions",
        "# were tested. `make pins` writes it; see CONTRIBUTING.md.",
    ),
    CUDA: (
        "# What the CUDA build of torch needs on Linux beside constraints.txt; the CPU build needs nothing of it.",
        "# `make pins` writes it; see CONTRIBUTING.md.",
    ),
}


def blocks(text: str) -> dict[str, list[str]]:
    """Return the hashes by pin, a pin being a line such as ``torch==2.13.0`` with its marker if it has one."""
    found: dict[str, list[str]] = {}
    hashes: list[str] = []
    for line in text.splitlines():
        if line.startswith("    --hash="):
            hashes.append(line.strip(" \\"))
        elif line and not line.startswith(("#", " ")):
            hashes = found.setdefault(line.removesuffix(" \\"), [])
    return found


def written(path: Path) -> dict[str, list[str]]:
    """Return the pins in force, none where the file is new."""
    return blocks(path.read_text()) if path.exists() else {}


def compiled(options: list[str]) -> dict[str, list[str]]:
    """Resolve setup.cfg with all extras for every platform, starting from the pins in force."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pins.txt"
        # without their hashes, which uv would otherwise take over as they are
        out.write_text("\n".join(pin for path in HEADERS for pin in written(path)))
        extras = [word for extra in ("test", "dev", "docs", "vqa", "quantized") for word in ("--extra", extra)]
        shape = ["--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
        quiet = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command = ["uv", "pip", "compile", "setup.cfg", *extras, *shape, *quiet, "--output-file", str(out), *options]
        subprocess.run(command, cwd=ROOT, check=True)
        return blocks(out.read_text())


def write(path: Path, pins: dict[str, list[str]]) -> None:
    """Write one file, sorted, in the form pip reads."""
    lines = list(HEADERS[path])
    for pin in sorted(pins):
        lines.append(" \\\n    ".join([pin, *sorted(pins[pin])]))
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Resolve and write both files."""
    pins = {}
    for pin, hashes in compiled(sys.argv[1:]).items():
        if ELSEWHERE.search(pin.replace("!= 'emscripten'", "")):
            continue
        # torchvision changes how transformers reads images, and bitsandbytes is for GPUs: only the extras bring them
        for project, extra in (("torchvision", "vqa"), ("bitsandbytes", "quantized")):
            if pin.startswith(f"{project}=="):
                pin = f"{pin} ; extra == '{extra}'"
        pins[pin] = hashes
    write(CUDA, {pin: hashes for pin, hashes in pins.items() if CUDA_NAMES.match(pin)})
    write(PINS, {pin: hashes for pin, hashes in pins.items() if not CUDA_NAMES.match(pin)})


if __name__ == "__main__":
    main()
