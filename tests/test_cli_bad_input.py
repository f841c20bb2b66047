"""Bad input at the command line: each gives one clear line and exit status 2, and changes nothing of the user's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from bad_input import CONFIG_FILES, FOLDERS, JANUS, MISTAKES, VERBS, gap
from desk import EXECUTED, fingerprint
from small_runs import CONFIGS, expect_error, tree

from unigap.__main__ import VERBS as ALL_VERBS
from unigap.__main__ import main

SECONDS = 10


@pytest.fixture(scope="module")
def untouched(desk: Path) -> dict[str, str]:
    """What the desk is like before."""
    return fingerprint(desk)


@pytest.fixture
def at_desk(here: Path, desk: Path) -> Path:
    """A working directory of its own in which everything on the desk lies."""
    for item in desk.iterdir():
        (here / item.name).symlink_to(item)
    return here


def spoken(command: Sequence[str], janus_folder: Path) -> list[str]:
    """The words of a command, with a sound checkpoint where it names one."""
    return [str(janus_folder) if word == JANUS else word for word in command]


# Lightning's own hint, beside our line, where the data module of another stage is named
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gives_one_clear_line(
    name: str,
    desk: Path,
    untouched: dict[str, str],
    at_desk: Path,
    janus_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mistake, configs = MISTAKES[name], tree(CONFIGS)
    capsys.readouterr()
    # of this process: another that keeps the machine busy is no fault of the command's
    start = time.process_time()
    status = main(spoken(mistake.command, janus_folder))
    assert time.process_time() - start < SECONDS
    expect_error(status, capsys, *mistake.told)
    assert fingerprint(desk) == untouched and tree(CONFIGS) == configs, "a file of the user's was changed"
    assert not (at_desk / EXECUTED).exists(), "code in a file was run"


def test_the_table_covers_every_verb() -> None:
    assert len(MISTAKES) >= 60
    assert {mistake.command[0] for mistake in MISTAKES.values()} >= ALL_VERBS.keys()


@pytest.mark.parametrize("name", ["unknown verb", "a key twice", "report with a decompression bomb"])
def test_a_process_ends_with_the_line_and_status_2(name: str, at_desk: Path) -> None:
    mistake = {**VERBS, **CONFIG_FILES, **FOLDERS}[name]
    command = [sys.executable, "-m", "unigap", *mistake.command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and line.startswith("error: ")
    assert all(part in line for part in mistake.told)


@pytest.mark.parametrize(
    ("option", "name", "sentence"),
    [
        ("--checkpoint", "no/such", "couldn't find them in the cached files"),
        ("--prompts", "datasets:no/such#text", "Couldn't reach 'no/such' on the Hub (OfflineModeIsEnabled)"),
    ],
)
def test_an_error_of_the_hub_ends_after_a_sentence(
    option: str,
    name: str,
    sentence: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    status = main(["gap", option, name])
    told = capsys.readouterr().err
    assert status == 2 and len(told.splitlines()) == 1 and "no/such" in told
    reason, _, advice = told.strip().partition(sentence)
    assert reason and advice in ("", "; check its name, or give a folder"), told


def test_debug_shows_the_traceback(at_desk: Path) -> None:
    with pytest.raises(ValueError, match=r"^cfg must be >= 1") as raised:
        main([*gap(cfg=0.5).command, "--debug"])
    assert Path(raised.traceback[-1].path).name == "base.py"


def test_debug_alone_is_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug"]) == 0
    assert capsys.readouterr().out.startswith("usage: unigap")
