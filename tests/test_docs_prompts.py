"""Every command in docs/prompts.md, run as it stands there on the files shown there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmark_files import lay_sets

from unigap.__main__ import main
from unigap.prompt_sets import READERS

PAGE = (Path(__file__).parents[1] / "docs" / "prompts.md").read_text()
SHOWN = re.compile(r"^`([\w-]+\.jsonl)`:.*?\n```json\n(.*?)```", re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^unigap .*$", PAGE, re.MULTILINE)


def test_the_commands_of_the_page_work_in_its_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_sets(here)
    shown = SHOWN.findall(PAGE)
    assert len(shown) == 6 and len(COMMANDS) == 11
    for name, text in shown:
        # the stand-in of TIFA's file has other ids
        Path(name).write_text(text.replace("coco_301091", "coco_1"))
    for command in COMMANDS:
        assert main(command.split()[1:]) == 0, command
        assert capsys.readouterr().out, command
    assert {"geneval.jsonl", "train.jsonl", "clean.jsonl", "geneval.json"} <= {path.name for path in here.iterdir()}


def test_the_page_names_every_format() -> None:
    assert set(re.findall(r"^\| `([\w-]+):", PAGE, re.MULTILINE)) == READERS.keys()
