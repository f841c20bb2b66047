"""Builds the sdist, the wheel from it, and tries the wheel as a user would: installed, outside the repository.

What the wheel depends on is taken from the environment this runs in, so nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from test_report import make_run

ROOT = Path(__file__).parents[1]
NO_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "_build", "build", "dist", "runs", "wandb")
IN_SDIST = (
    "configs/shapes/sft.yaml",
    "constraints.txt",
    "tests/conftest.py",
    "docs/index.md",
    "Makefile",
    "LICENSE",
    "evidence/__main__.py",
    "unigap/worlds/shapes/checkpoints/show_o/model.safetensors",
)
IN_WHEEL = (
    "theory/__init__.py",
    "unigap/configs/shapes/sft.yaml",
    "unigap/configs/wandb.yaml",
    "unigap/report/pages/report.html.j2",
    "unigap/worlds/shapes/checkpoints/janus/model.safetensors",
    "unigap/worlds/shapes/checkpoints/janus/README.md",
)
CHECKPOINTS = "unigap/worlds/shapes/checkpoints/"
LARGEST_WHEEL = 12_000_000
"""Bytes."""


def build(hook: str, source: Path, out: Path) -> Path:
    """What a build hook of setuptools makes of a source tree."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    told = subprocess.run([sys.executable, "-c", code, out], cwd=source, check=True, stdout=subprocess.PIPE, text=True)
    return out / told.stdout.splitlines()[-1]


def check_parts(kind: str, names: list[str], wanted: tuple[str, ...]) -> None:
    """Makes sure that an archive holds what it must."""
    missing = [part for part in wanted if part not in names]
    assert not missing, f"the {kind} lacks {missing}"


def away() -> dict[str, str]:
    """The environment of a process that must not find this repository."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def install(wheel: Path, folder: Path) -> Path:
    """A fresh virtual environment with the wheel; what it needs is found where this script found it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "--disable-pip-version-check", "install"]
    # an editable install that PYTHONPATH leads to would count as this version, installed already
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True, env=away())
    (packages,) = folder.glob("lib/python*/site-packages")
    # a plain path: the .pth files beside it, an editable install of this repository among them, are not read
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def main() -> None:
    """Builds, installs, tries."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT, folder / "source", ignore=NO_SOURCE)
        sdist = build("build_sdist", folder / "source", folder)
        with tarfile.open(sdist) as archive:
            check_parts("sdist", [part.partition("/")[2] for part in archive.getnames()], IN_SDIST)
            archive.extractall(folder / "sdist", filter="data")
        (unpacked,) = (folder / "sdist").iterdir()
        wheel = build("build_wheel", unpacked, folder)
        with zipfile.ZipFile(wheel) as parts:
            check_parts("wheel", parts.namelist(), IN_WHEEL)
            strangers = {part.split("/")[0] for part in parts.namelist()} - {"unigap", "theory"}
            assert all(part.endswith(".dist-info") for part in strangers), f"the wheel holds {strangers}"
            models = {part.removeprefix(CHECKPOINTS).split("/")[0] for part in parts.namelist() if CHECKPOINTS in part}
            assert models == {"janus"}, f"the wheel carries the models {models}"
        assert wheel.stat().st_size < LARGEST_WHEEL, f"the wheel has {wheel.stat().st_size} bytes"
        programs = install(wheel, folder / "venv")

        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()

        def run(*words: str) -> str:
            told: Any = subprocess.run(
                [programs / words[0], *words[1:]],
                cwd=elsewhere, env=away(), check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            return str(told.stdout)

        where = run("python", "-c", "import unigap, theory; print(unigap.__file__, theory.__file__)").split()
        assert all(Path(path).is_relative_to(folder / "venv") for path in where), f"not the installed wheel: {where}"
        version = run("unigap", "--version").split()[1]
        assert f"-{version}-" in wheel.name, (version, wheel.name)
        refused = [programs / "unigap", "gap", "--checkpoint", "shapes-emu3"]
        done = subprocess.run(refused, cwd=elsewhere, env=away(), capture_output=True, text=True)
        assert done.returncode == 2 and "only in the repository; clone it" in done.stderr, done.stderr
        run("unigap", "gap", "--candidates", "1", "--per_cell", "1", "--out", "gap.json")
        figures = json.loads((elsewhere / "gap.json").read_text())
        assert figures["generation"]["all"]["n"] == 15, figures["generation"]
        assert "shapes/sft " in run("unigap", "configs")
        # these options come after the config is read, so its classes are found and its values are there
        printed = run("unigap", "fit", "--config", "shapes/sft", "--run", "elsewhere", "--print_config")
        assert "unigap.stages.SFTStage" in printed and "run: elsewhere" in printed, printed
        make_run(elsewhere / "run")
        run("unigap", "report", "run")
        assert (elsewhere / "run/report.html").stat().st_size > 10_000
        print(f"{sdist.name} and {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB): built, installed and tried")


if __name__ == "__main__":
    main()
