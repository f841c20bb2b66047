"""What commands write: only over what the same command wrote, whole or not at all, whoever reads the terminal."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import lay_sets
from small_runs import tree

import unigap.cli.commands.judge
from unigap.__main__ import main
from unigap.files.durable import explain_write_errors, whole_folder

SCORE = ["score", "geneval", "--prompts", "geneval:evaluation_metadata.jsonl", "--answers", "answers.jsonl"]


@pytest.fixture
def answers(here: Path) -> Path:
    """A working directory with a benchmark and answers to it."""
    lay_sets(here)
    (here / "answers.jsonl").write_text('{"id": "00000", "objects": []}\n')
    return here


def run_unread(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command whose standard output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, "-m", "unigap", *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)


@pytest.mark.parametrize("words", [["--help"], ["prompts", "import", "--help"]])
def test_help_that_nobody_reads_is_no_error(words: list[str]) -> None:
    done = run_unread(*words)
    assert (done.returncode, done.stderr) == (0, "")


def test_figures_are_written_whether_they_are_read_or_not(answers: Path) -> None:
    done = run_unread(*SCORE, "--out", "figures.json")
    assert done.returncode == 0 and done.stderr.startswith("next: ") and done.stderr.count("\n") == 1
    assert '"mean of tags"' in Path("figures.json").read_text()


def test_own_figures_are_replaced_and_a_name_is_a_name(answers: Path) -> None:
    Path("empty.json").touch()
    for name in ("figures.json", "figures.json", "null", "null", "empty.json"):
        assert main([*SCORE, "--out", name]) == 0
        assert '"mean of tags"' in Path(name).read_text()


def test_own_pages_are_replaced(small_demo: Path, here: Path) -> None:
    shutil.copytree(small_demo, "a", ignore=shutil.ignore_patterns("pool"))
    shutil.copytree(small_demo, "b", ignore=shutil.ignore_patterns("pool"))
    old = Path("a/report.html").read_text().replace('<meta name="generator" content="unigap">\n', "")
    Path("a/report.html").write_text(old)  # of a version that set no mark
    for command in (["report", "a"], ["report", "a"], ["compare", "a", "b"], ["compare", "a", "b"]):
        assert main(command) == 0
    assert 'content="unigap"' in Path("a/report.html").read_text()


def test_what_lies_beside_an_export_stays(here: Path) -> None:
    Path(".new.partial").mkdir()
    Path(".new.partial/notes.txt").write_text("mine")
    with whole_folder(Path("new")) as aside:
        (aside / "a.txt").write_text("whole")
    assert {name: data for name, data in tree(here).items()} == {
        ".new.partial/notes.txt": b"mine",
        "new/a.txt": b"whole",
    }


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling"])
def test_an_export_replaces_neither_a_pipe_nor_a_link(here: Path, kind: str) -> None:
    Path("there").mkdir()
    if kind == "pipe":
        os.mkfifo("new")
    else:
        Path("new").symlink_to("there" if kind == "link" else "nowhere")
    with pytest.raises(ValueError, match=r"not empty|is a symbolic link"), whole_folder(Path("new")):
        pytest.fail("the work began")


def test_a_judge_export_that_was_killed_can_be_done_again(
    small_demo: Path, janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_demo / "pool", "pool")
    command = ["judge", "export", "pool", "--out", "out", "--checkpoint", str(janus_folder), "--n", "3"]
    images = unigap.cli.commands.judge._images

    def killed(*arguments: Any) -> Iterator[Any]:
        yield next(images(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(unigap.cli.commands.judge, "_images", killed)
    assert main(command) == 130 and not Path("out").exists()
    monkeypatch.setattr(unigap.cli.commands.judge, "_images", images)
    assert main(command) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{i:05d}.png" for i in range(3)] + ["verdicts.csv"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "make the folder writable"), (errno.ENOTDIR, "move one"),
     (errno.EISDIR, "move one"), (errno.EEXIST, "move one"), (errno.ENAMETOOLONG, "shorten the name")],
)  # fmt: skip
def test_the_advice_fits_the_error(number: int, remedy: str) -> None:
    with pytest.raises(OSError, match=remedy) as error, explain_write_errors(Path("a/b")):
        raise OSError(number, os.strerror(number))
    assert "cannot write a/b" in str(error.value)
    assert ("free some space" in str(error.value)) == (number == errno.ENOSPC)
