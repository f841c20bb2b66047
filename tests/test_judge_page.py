"""The page on which a person judges exported images: what it serves, what it writes, whom it refuses."""

from __future__ import annotations

import csv
import functools
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unigap.cli.commands.judge_page import FilledSheet
from unigap.judges import HumanJudge

PROMPTS = ["a red circle", "'=SUM(A1)", 'two "blue" squares']


@pytest.fixture
def sheet(here: Path) -> Path:
    """An exported folder of three images; its sheet has a column that unigap does not know."""
    folder = here / "sheet"
    folder.mkdir()
    with (folder / "verdicts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "prompt", "verdict", "rater", "candidate_id", "note"])
        for number, prompt in enumerate(PROMPTS):
            Image.new("RGB", (2, 2), (number, 0, 0)).save(folder / f"{number:05d}.png")
            writer.writerow([f"{number:05d}.png", prompt, "", "", f"c{number}@0.0", "kept"])
    return folder


@pytest.fixture
def served(sheet: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process of ``unigap judge page`` and its port."""
    command = [sys.executable, "-m", "unigap", "judge", "page", "sheet", "--rater", "ann"]
    # a shell that runs the tests in the background hands on an ignored SIGINT
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=heeded) as process:
        assert process.stdout is not None
        told = re.search(r"0 of 3 judged; open http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert told
        yield process, int(told[1])
        process.kill()


def ask(port: int, path: str, told: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and content of an answer; ``told`` is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    body = None if told is None else json.dumps(told)
    connection.request("GET" if told is None else "POST", path, body, given if told is not None else headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "verdicts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_person_judges_on_the_page(sheet: Path, served: tuple[subprocess.Popen[str], int]) -> None:
    process, port = served
    status, page = ask(port, "/")
    assert status == 200 and b"http" not in page, "the page loads nothing from elsewhere"
    shown = json.loads(ask(port, "/rows")[1])
    assert [row["prompt"] for row in shown] == ["a red circle", "=SUM(A1)", 'two "blue" squares']
    assert ask(port, "/image/1") == (200, (sheet / "00001.png").read_bytes())
    assert ask(port, "/verdict", {"number": 1, "verdict": "yes"})[0] == 200
    assert ask(port, "/verdict", {"number": 0, "verdict": "yes"})[0] == 200
    assert ask(port, "/verdict", {"number": 0, "verdict": "no"})[0] == 200
    before = (sheet / "verdicts.csv").read_bytes()
    assert HumanJudge(str(sheet / "verdicts.csv")).verdicts == {"c0@0.0": False, "c1@0.0": True}, "at once"
    mistakes: list[Any] = [{"number": 3, "verdict": "yes"}, {"number": -1, "verdict": "yes"}, {"number": 0}, []]
    for wrong in mistakes:
        assert ask(port, "/verdict", wrong)[0] == 400
    assert ask(port, "/verdict", {"number": 2, "verdict": "no"}, Content_Type="text/plain")[0] == 403
    assert ask(port, "/verdict", {"number": 2, "verdict": "no"}, Host="example.org")[0] == 403
    assert ask(port, "/rows", Host=f"example.org:{port}")[0] == 403
    assert ask(port, "/image/9")[0] == ask(port, "/image/../verdicts.csv")[0] == 404
    assert (sheet / "verdicts.csv").read_bytes() == before
    found = rows(sheet)
    assert [row["rater"] for row in found] == ["ann", "ann", ""] and {row["note"] for row in found} == {"kept"}
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0 and "2 of 3 judged: sheet/verdicts.csv" in out
    assert "unigap judge import POOL sheet/verdicts.csv" in error


def test_a_sheet_goes_on_where_it_was_left(sheet: Path) -> None:
    FilledSheet(sheet).judge(2, "yes")
    again = FilledSheet(sheet, "bob")
    assert again.judged == 1 and again.shown()[2]["verdict"] == "yes"
    again.judge(0, "no")
    assert [row["rater"] for row in rows(sheet)] == ["bob", "", ""]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("00001.png", "../secret.png", "no image '../secret.png'"),
        ("00001.png", "gone.png", "no image 'gone.png'"),
        (",,,c1@0.0", ",maybe,,c1@0.0", "a verdict is yes or no"),
        ("candidate_id", "candidate", "candidate_id"),
    ],
)
def test_a_sheet_that_does_not_fit_is_refused(sheet: Path, old: str, new: str, told: str) -> None:
    text = (sheet / "verdicts.csv").read_text()
    assert old in text
    (sheet / "verdicts.csv").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(told)):
        FilledSheet(sheet)
