"""Shell completion, in a real bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from documented import documented
from small_runs import expect_error

from unigap.__main__ import VERBS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "unigap.bash"
    with path.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", file)
        assert main(documented("--print_completion")[:2]) == 0
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("com", ["compare"]),
        ("", list(VERBS)),
        ("gap --cand", ["--candidates"]),
        ("gap --seed 3 --temp", ["--temperature"]),
        ("fit --trainer.max_ep", ["--trainer.max_epochs"]),
        ("export ", ["pool", "model"]),
        ("export model runs --ada", ["--adapter"]),
    ],
)
def test_bash_completes(typed: str, offered: list[str], script: Path) -> None:
    words = f"unigap {typed}".split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    code = f'source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _unigap; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    expect_error(main(["--print_completion", "bsh"]), capsys, "no completion for 'bsh'", "did you mean 'bash'")
