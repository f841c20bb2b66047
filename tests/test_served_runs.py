"""Runs with a judge over HTTP: killed servers, killed rounds, and a key that is never written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_stub import MODEL, ChatStub, logit_of, refused
from small_runs import CHECKPOINT, POOL, TRAINER, improve, tree, words

from unigap.__main__ import main
from unigap.files.images import to_image
from unigap.judges.vqa import QUESTION
from unigap.loop.sampling import stack_drawings
from unigap.pool import Pool

KEY = "sk-Secret-0123456789"
EXTERNAL = "model.init_args.external"


@pytest.fixture
def stub(here: Path) -> Iterator[ChatStub]:
    """A server with log-probabilities, and an empty working directory."""
    with ChatStub() as stub:
        yield stub


def flags(url: str, **options: object) -> dict[str, object]:
    given = {"url": url, "model": MODEL, "timeout": 2, "patience": 20, **options}
    return {
        "model.init_args.judge": "unigap.judges.RandomJudge",
        EXTERNAL: "unigap.judges.OpenAIJudge",
        **{f"{EXTERNAL}.init_args.{name}": value for name, value in given.items()},
        "trainer.max_epochs": 1,
        "trainer.limit_val_batches": 0,
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def start(port: int, log: Path) -> subprocess.Popen[bytes]:
    """A stub in a process of its own, once it listens."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("chat_stub.py")), str(port), str(log)])
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    raise AssertionError("the stub does not start")


def replied(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_a_server_that_is_killed_in_a_round_and_comes_back(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, log = free_port(), here / "log"
    servers = [start(port, log)]

    def kill_and_restart() -> None:
        while len(replied(log)) < 10:
            time.sleep(0.01)
        servers[0].kill()
        servers[0].wait()
        time.sleep(1)
        servers.append(start(port, log))

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    try:
        assert improve(janus_folder, "sft", flags(f"http://127.0.0.1:{port}/v1", concurrency=2)) == 0
        killer.join()
    finally:
        for server in servers:
            server.kill()
            server.wait()
    assert capsys.readouterr().err.count("trying again for 20 seconds") == 1
    pool = Pool.open("runs/sft/pool")
    verdicts = pool.judgments("served-judge-7b")
    assert len(verdicts) == len(pool.candidates()) and all(row.mass == pytest.approx(0.9) for row in verdicts)
    # replies under way when the server was killed are the only ones that can be lost
    assert len(replied(log)) - len(set(replied(log))) <= 2


def test_a_killed_round_asks_nothing_twice(janus_folder: Path, janus: Any, stub: ChatStub) -> None:
    """A process is killed in the middle of a batch; the round then ends as one undisturbed."""
    options = flags(stub.url, concurrency=1)
    command = [sys.executable, "-m", "unigap", *words("fit", "sft", {**TRAINER, **POOL, CHECKPOINT: janus_folder})]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    asked_before_kill = 30
    stub.after = lambda count: os.kill(process.pid, signal.SIGKILL) if count == asked_before_kill else None
    assert process.wait() == -signal.SIGKILL
    stub.after = lambda count: None
    assert len(stub.received) == asked_before_kill and not list(Path("runs/sft/pool").glob("round-00000/manifest.json"))
    assert improve(janus_folder, "sft", {**options, "resume": "auto"}) == 0
    # the question at the start is asked by each process; the reply that killed the first one may not have been stored
    again = {digest: count for digest, count in stub.replied.items() if count > 1}
    assert len(again) <= 2 and sum(again.values()) <= 4
    pool = Pool.open("runs/sft/pool")
    drawn, verdicts = pool.candidates(), pool.logits("served-judge-7b")
    images = [to_image(pixels_CHW) for pixels_CHW in janus.decode(stack_drawings(drawn))]
    assert len(drawn) > asked_before_kill
    for candidate, image in zip(drawn, images, strict=True):
        said = QUESTION.replace("{prompt}", candidate.prompt.text)
        assert verdicts[candidate.id] == pytest.approx(logit_of(image, said), abs=1e-5)


def test_the_key_is_sent_and_never_written(
    janus_folder: Path, stub: ChatStub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    stub.faults = [refused(500, f"bad key {KEY}")]
    assert improve(janus_folder, "sft", flags(stub.url, key_variable="JUDGE_KEY")) == 0
    assert main(["export", "pool", "runs/sft/pool", "--out", "exported", "--checkpoint", str(janus_folder)]) == 0
    assert main(["export", "model", "runs/sft", "--out", "model"]) == 0
    assert stub.keys == {f"Bearer {KEY}"}
    written = tree(Path())
    assert len(written) > 20 and any(b"JUDGE_KEY" in data for data in written.values())
    assert not [name for name, data in written.items() if KEY.encode() in data]
    said = capfd.readouterr()
    assert "JUDGE_KEY" not in said.out and KEY not in said.out + said.err and "***" in said.err
    recipe = next(row for row in Pool.open("runs/sft/pool").recipe(0)["judges"] if row["name"] == "served-judge-7b")
    assert recipe.keys() == {"name", "model", "question", "samples"}
