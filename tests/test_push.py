"""Uploads to the Hugging Face hub, against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stub import TOKEN, HubStub, serve_hub
from huggingface_hub import constants
from small_runs import expect_error

from unigap.__main__ import main


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStub]:
    """A hub that this process talks to, with a token."""
    with serve_hub() as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stub


@pytest.fixture
def exported(here: Path) -> Path:
    """A working directory with the files of an exported pool and of an exported model."""
    (here / "my-pool/data").mkdir(parents=True)
    (here / "my-pool/data/train-00000-of-00001.parquet").write_bytes(b"PAR1" * 9)
    (here / "my-pool/README.md").write_text("---\nlicense: mit\n---\n# A pool\n")
    (here / "my-model").mkdir()
    for name in ("README.md", "unigap.yaml", "model.safetensors"):
        (here / "my-model" / name).write_text(f"content of {name}\n")
    return here


@pytest.mark.parametrize(
    ("kind", "kind_of_repo", "where"), [("pool", "dataset", "datasets"), ("model", "model", "models")]
)
def test_an_export_is_uploaded(
    kind: str, kind_of_repo: str, where: str, exported: Path, hub: HubStub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported / f"my-{kind}"
    assert main(["push", kind, f"my-{kind}", f"me/my-{kind}"]) == 0
    written = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert hub.files == {f"/api/{where}/me/my-{kind}": written}
    told = hub.repositories[f"me/my-{kind}"]
    assert told["visibility"] == "private" and told.get("type", "model") == kind_of_repo
    printed = "".join(capsys.readouterr())
    assert f"uploaded: {hub.url}" in printed and TOKEN not in printed


@pytest.mark.parametrize("offline", [False, True])
def test_a_dry_run_lists_the_files_and_asks_nobody(
    offline: bool, exported: Path, hub: HubStub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    assert main(["push", "model", "my-model", "me/my-model", *([] if offline else ["--dry_run"])]) == 0
    printed = capsys.readouterr()
    assert "model.safetensors" in printed.out and "nothing is uploaded (dry run): 3 files" in printed.out
    assert "unigap push model my-model me/my-model" in printed.err and hub.requests == []
    assert ("without HF_HUB_OFFLINE" in printed.err) is offline


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_one_line_without_the_token(
    status: int, exported: Path, hub: HubStub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuse = status
    expect_error(main(["push", "pool", "my-pool", "me/my-pool"]), capsys, "me/my-pool", "hf auth login")


def test_what_is_no_export_is_refused(exported: Path, hub: HubStub, capsys: pytest.CaptureFixture[str]) -> None:
    expect_error(main(["push", "pool", "my-model", "me/x"]), capsys, "'my-model'", "unigap export pool")
    expect_error(main(["push", "model", "my-model", "mine"]), capsys, "names no owner", "OWNER/mine")
    (exported / "my-model/notes").symlink_to("/etc/hostname")
    expect_error(main(["push", "model", "my-model", "me/x"]), capsys, "notes", "symbolic link")
    assert hub.requests == []
