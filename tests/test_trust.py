"""Nothing from outside is run or fetched by URL, nothing waits for a network, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from bad_input import CHECKPOINTS, JANUS
from desk import EXECUTED
from kill_points import Killed, differences
from small_pools import flip
from small_runs import epochs, expect_error, improve

from unigap.__main__ import main
from unigap.cli import lightning_verbs
from unigap.cli.commands.demo import MARK
from unigap.files import durable
from unigap.files.seals import SEALS, read_sealed, write_sealed
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.report.pages.report import write_report

BOMBS: dict[str, Callable[[bytes, Path], object]] = {
    "bare.ckpt": lambda data, path: pickle.loads(data),
    "bomb.ckpt": lambda data, path: torch.load(path, weights_only=False),
    "pickled/pytorch_model.bin": lambda data, path: pickle.loads(data),
    "pickle-inside/model.safetensors": lambda data, path: pickle.loads(data),
    "pool-pickled/round-00000/judgments.parquet": lambda data, path: pickle.loads(data),
    "python.yaml": lambda data, path: yaml.unsafe_load(data),
    "coded/own.py": lambda data, path: exec(data),
}
URLS = [name for name in CHECKPOINTS if "URL" in name]


@pytest.mark.parametrize("name", BOMBS)
def test_the_bombs_on_the_desk_are_live(name: str, here: Path, desk: Path) -> None:
    """The table of bad input shows that none of them goes off; this shows that each would."""
    BOMBS[name]((desk / name).read_bytes(), desk / name)
    assert (here / EXECUTED).exists()


def test_a_checkpoint_that_is_exchanged_after_the_check_is_not_run_either(
    here: Path, desk: Path, janus_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("open_lightning", "check_continues", "finished"):
        monkeypatch.setattr(lightning_verbs, check, lambda *arguments: None)
    status = improve(janus_folder, "sft", {"ckpt_path": desk / "bomb.ckpt"})
    expect_error(status, capsys, "nothing in it was run")
    assert not (here / EXECUTED).exists()


@pytest.mark.parametrize("name", URLS)
def test_a_url_is_refused_before_anyone_is_called(
    name: str, here: Path, janus_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: called.append(where))
    monkeypatch.setattr(socket.socket, "connect", lambda self, where: called.append(where))
    mistake = CHECKPOINTS[name]
    status = main([str(janus_folder) if word == JANUS else word for word in mistake.command])
    expect_error(status, capsys, *mistake.told)
    assert called == []


def test_wandb_stays_offline_and_nothing_waits(janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # whoever calls it waits for ever
        silent.setblocking(False)
        monkeypatch.setenv("WANDB_MODE", "")
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        flags = {"trainer.logger": "lightning.pytorch.loggers.WandbLogger", "trainer.logger.init_args.save_dir": here}
        try:
            assert improve(janus_folder, "sft", {**flags, "trainer.max_epochs": 1}) == 0
        finally:
            wandb.finish()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert list(here.glob("wandb/offline-run-*/*.wandb"))


def flipped_at_random(path: Path, rng: random.Random) -> tuple[int, bytes]:
    """Change one byte of a file; returns where and what the file was."""
    whole = path.read_bytes()
    at = rng.randrange(len(whole))
    flip(path, at, rng.randint(1, 255))
    return at, whole


def test_a_flipped_byte_of_a_checkpoint_is_noticed_or_carries_no_value(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "sft", {"trainer.max_epochs": 1}) == 0
    last, rng, noticed = here / "runs/sft/checkpoints/last.ckpt", random.Random(0), 0
    sound = torch.load(last, weights_only=True)
    for _ in range(60):
        at, whole = flipped_at_random(last, rng)
        try:
            found = open_lightning(str(last), "ckpt_path")
            assert not differences(found, sound), f"byte {at}"
        except ValueError as error:
            assert "last.ckpt" in str(error)
            noticed += 1
        last.write_bytes(whole)
    assert noticed >= 50


def test_every_byte_of_what_a_report_reads_counts(small_demo: Path, tmp_path: Path) -> None:
    run, rng = tmp_path / "run", random.Random(0)
    left_out = ("pool", "checkpoints", "logs", "config.yaml", "report.html", "rows.jsonl")
    shutil.copytree(small_demo, run, ignore=shutil.ignore_patterns(*left_out))
    read = [path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix in (".json", ".png")]
    read = [path for path in read if path.name not in (MARK, ".lock")]
    assert {path.name for path in read} >= {"summary.json", "curves.json", "gallery.json", "rejudged.json", SEALS}
    for path in read * (60 // len(read) + 1):
        at, whole = flipped_at_random(path, rng)
        with pytest.raises(ValueError, match=path.name):
            write_report(run)
        assert path.write_bytes(whole) == len(whole), at
    write_report(run)


def test_a_run_folder_without_seals_is_read_and_said_to_have_none(
    small_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_demo, tmp_path / "run", ignore=shutil.ignore_patterns("pool", SEALS))
    assert main(["report", str(tmp_path / "run")]) == 0
    assert f"warning: {tmp_path}/run/summary.json carries no seal" in capsys.readouterr().err


@pytest.mark.parametrize("k", range(6))
def test_a_kill_while_a_sealed_file_is_replaced_leaves_a_sound_one(
    k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(b"old")  # of an earlier version, without a seal
    write = durable.os.replace  # type: ignore[attr-defined]
    calls = 0

    def dying(old: Path, new: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == k // 2 + 1 and k % 2 == 0:
            raise Killed
        write(old, new)
        if calls == k // 2 + 1 and k % 2 == 1:
            raise Killed

    monkeypatch.setattr(durable.os, "replace", dying)  # type: ignore[attr-defined]
    with pytest.raises(Killed):
        write_sealed(path, b"new")
    monkeypatch.setattr(durable.os, "replace", write)  # type: ignore[attr-defined]
    assert read_sealed(path) in (b"old", b"new")
    write_sealed(path, b"newer")
    assert read_sealed(path) == b"newer"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="was edited"):
        read_sealed(path)


def test_a_run_goes_on_after_a_torn_line_and_says_so(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"trainer.max_epochs": 3}
    assert improve(janus_folder, "sft", {"trainer.max_epochs": 2}) == 0
    rows = here / "runs/sft/rows.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole + whole[:40])
    assert improve(janus_folder, "sft", {**flags, "resume": "must"}) == 0
    assert "rows.jsonl: the last line was cut off and is dropped" in capsys.readouterr().err
    assert rows.read_bytes().startswith(whole) and len(epochs(rows.parent)) == 3
    rows.write_bytes(whole.replace(b'"epoch": 1', b'"epoch": 0'))
    status = improve(janus_folder, "sft", {**flags, "trainer.max_epochs": 4, "resume": "must"})
    expect_error(status, capsys, "rows.jsonl: line 2 is damaged", "delete it to go on")


def test_a_full_disk_names_the_file(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "rows.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really_open(self, *args, **options)

    really_open = Path.open
    monkeypatch.setattr(Path, "open", full)
    status = improve(janus_folder, "sft", {"trainer.max_epochs": 1})
    expect_error(status, capsys, "cannot write runs/sft/rows.jsonl: No space left on device")


HOLD = """
import sys
from pathlib import Path
from unigap.files.writer_lock import WriterLock
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
with WriterLock(folder):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_folder_of_checkpoints_has_one_run(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "runs/sft/checkpoints"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        status = improve(janus_folder, "sft", {"trainer.max_epochs": 1})
        expect_error(status, capsys, f"is being written by process {other.pid} on")
        assert {path.name for path in folder.iterdir()} == {".lock"}
        other.communicate(b"\n")
    assert improve(janus_folder, "sft", {"trainer.max_epochs": 0}) == 0
