"""Nothing that comes from outside is run, nothing is fetched by URL, and nothing waits for a network."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from bad_input import CHECKPOINTS, JANUS
from desk import EXECUTED
from small_runs import expect_error, improve

from unigap import cli
from unigap.__main__ import main

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
    monkeypatch.setattr(cli, "open_lightning", lambda path, option: None)
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
