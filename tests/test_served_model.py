"""A judge over HTTP against a real server, ``transformers serve``, that is killed and restarted in a round."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small_runs import improve
from small_vqa import save_llava

from unigap.judges import OpenAIJudge, VQAJudge
from unigap.judges.vqa import QUESTION
from unigap.pool import Pool

NEEDED = ("fastapi", "openai", "uvicorn")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}")
SERVE = "from transformers.cli.transformers import main; main()"
SAMPLES = 3


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server of a checkpoint, once it listens."""
    command = [sys.executable, "-c", SERVE, "serve", str(folder), "--port", str(port), "--host", "127.0.0.1"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--device", "cpu"], env=offline, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        assert process.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server does not start")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small random vision-language model that samples."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_llava(tmp_path / "small-llava")
    # without it, transformers serve ignores the temperature
    sampling = {"do_sample": True, "bos_token_id": 1, "eos_token_id": 2}
    (tmp_path / "small-llava/generation_config.json").write_text(json.dumps(sampling))
    return tmp_path / "small-llava"


def stored() -> int:
    """The number of replies in the cache."""
    return sum(len(path.read_text().splitlines()) for path in Path("runs/replies").glob("*.jsonl"))


def test_a_real_server_is_killed_in_a_round_and_comes_back(janus_folder: Path, folder: Path, here: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    servers, at_kill = [serve(folder, port)], []

    def kill_and_restart() -> None:
        while stored() < 10:
            time.sleep(0.01)
        servers[0].kill()
        servers[0].wait()
        at_kill.append(stored())
        servers.append(serve(folder, port))

    flags = {
        "model.init_args.judge": "unigap.judges.RandomJudge",
        "model.init_args.external": "unigap.judges.OpenAIJudge",
        "model.init_args.external.init_args.url": f"http://127.0.0.1:{port}/v1",
        "model.init_args.external.init_args.model": folder,
        "model.init_args.external.init_args.samples": SAMPLES,
        "regrow.plan.candidates": 2,
        "trainer.max_epochs": 1,
        "trainer.limit_val_batches": 0,
    }
    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    try:
        assert improve(janus_folder, "sft", flags) == 0
        killer.join()
        pool = Pool.open("runs/sft/pool")
        candidates, verdicts = pool.candidates(), pool.judgments(f"served-small-llava-of-{SAMPLES}")
        assert len(verdicts) == len(candidates) and stored() == SAMPLES * len(candidates) > at_kill[0]
        check_share_of_yes(folder, port)
    finally:
        killer.join()
        for server in servers:
            server.kill()
            server.wait()


def check_share_of_yes(folder: Path, port: int) -> None:
    """The server says yes as often as the same model in this process thinks."""
    samples, question = 51, QUESTION.replace("{prompt}", "a ring")
    pixels_BCHW = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    answers = VQAJudge(str(folder))._answers([(question,)] * 64, pixels_BCHW, "cpu")
    p_yes_B = answers.mass * answers.logit.sigmoid()
    p_yes, least_certain = p_yes_B.max().item(), int(p_yes_B.argmax())
    assert 0.3 < p_yes < 0.7
    judge = OpenAIJudge(f"http://127.0.0.1:{port}/v1", str(folder), samples=samples)
    image = pixels_BCHW[least_certain : least_certain + 1]
    found = judge.ask_each(None, [[question]], image)  # type: ignore[arg-type]  # it asks no model of ours
    yes = (samples + 2) * found.logit.sigmoid().item() - 1
    assert abs(yes - samples * p_yes) < 4 * (samples * p_yes * (1 - p_yes)) ** 0.5, (yes, samples * p_yes)
