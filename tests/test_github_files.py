"""The files that GitHub and Docker read."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options() -> configparser.SectionProxy:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]


def test_the_workflow_runs_what_every_change_must_pass() -> None:
    workflow = read(GITHUB / "workflows" / "ci.yml")
    steps = workflow["jobs"]["checks"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"] and (ROOT / ".ci/run").is_file()
    (python,) = [step["with"]["python-version"] for step in steps if "python" in step.get("uses", "")]
    assert options()["python_requires"] == f">={python}"
    # YAML 1.1 reads the key "on" as true
    assert {"push", "pull_request"} <= workflow[True].keys()


def test_the_issue_forms_are_whole() -> None:
    forms = [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = read(path)
        assert form["name"] and form["description"]
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids) and any(
            part["validations"]["required"] for part in form["body"] if "validations" in part
        )


def test_the_image_has_a_torch_that_is_new_enough() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    base = re.search(r"^ARG BASE=pytorch/pytorch:(\d+)\.(\d+)\.\d+-cuda", text, re.MULTILINE)
    least = re.search(r"^torch>=(\d+)\.(\d+)$", options()["install_requires"], re.MULTILINE)
    assert base and least and tuple(map(int, base.groups())) >= tuple(map(int, least.groups()))
    extras = re.search(r"/opt/unigap\[([\w,]+)\]", text)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert extras and {*extras[1].split(",")} <= {*config["options.extras_require"]}


def test_the_first_notebook_installs_only_what_is_missing() -> None:
    cells = json.loads((ROOT / "notebooks" / "01_measure_the_gap.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    assert 'find_spec("unigap") is None' in source and "%pip install" in source
