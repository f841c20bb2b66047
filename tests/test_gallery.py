"""What a run looks like from outside: the gallery, the pool's growth and the config, in W&B, TensorBoard and CSV."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import wandb
from documented import commands, documented
from kill_points import Killed, Point, armed, at_call, kill
from PIL import Image
from safetensors.torch import load
from small_runs import CHECKPOINT, FICKLE, POOL, SUMMARY, TRAINER, improve, same, state
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unigap.__main__ import main
from unigap.callbacks import run_summary
from unigap.callbacks.gallery import COLUMNS
from unigap.models.janus import Janus
from unigap.pool import Pool

GALLERY = {"trainer.callbacks+": "unigap.callbacks.Gallery", "trainer.callbacks.prompts": 3}
BLOCK, HEADER = 2**15, 7


@pytest.fixture
def offline(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory for W&B runs, with a session that has not seen the world."""
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(here / name.lower()))
    for name in ("WANDB_MODE", "WANDB_QUIET"):
        monkeypatch.setenv(name, "")  # so that what a run sets is taken back
        monkeypatch.delenv(name)
    wandb.teardown()
    yield here
    wandb.teardown()


def small(command: list[str], checkpoint: Path, flags: Mapping[str, object]) -> list[str]:
    """A command of the page as a small run."""
    given = {**TRAINER, **POOL, **FICKLE, CHECKPOINT: checkpoint, **flags}
    return [*command, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def written(log: Path) -> bytes:
    """What a W&B run wrote, without the headers its log has in every block."""
    data, place, parts = log.read_bytes(), HEADER, []
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        size = int.from_bytes(data[place + 4 : place + 6], "little")
        parts.append(data[place + HEADER : place + HEADER + size])
        place += HEADER + size
    return b"".join(parts)


def staged(data: Path) -> list[bytes]:
    """What waits to be uploaded with artifacts; W&B keeps a table with its pictures in one."""
    return sorted({path.read_bytes() for path in data.rglob("*") if path.is_file()})


def rows_of_table(files: Sequence[bytes]) -> list[dict[str, Any]]:
    """The rows of the gallery in W&B, of all its increments, by epoch."""
    tables = [json.loads(data) for data in files if data.startswith(b'{"_type": "table"')]
    rows = [dict(zip(table["columns"], row, strict=True)) for table in tables for row in table["data"]]
    return sorted(rows, key=lambda row: row["epoch"])


def test_a_run_in_wandb(janus_folder: Path, offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = {"model.init_args.model.init_args.lora_rank": 2}
    assert main(small(documented("configs/wandb.yaml"), janus_folder, lora)) == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line.startswith("W&B: the run is offline; upload it with: wandb sync runs/c_sft/wandb/offline-run-")
    run = offline / last_line.rpartition(" ")[2]
    wandb.teardown()  # its service writes the log
    log = written(next(run.glob("*.wandb")))

    # every epoch hangs the same prompts, with both verdicts and a picture
    files = staged(offline / "data")
    rows, pictures = rows_of_table(files), {hashlib.sha256(data).hexdigest(): data for data in files}
    assert [row["epoch"] for row in rows] == [0] * 8 + [1] * 8 + [2] * 8
    for key in ("prompt", "seed"):
        assert [row[key] for row in rows[:8]] == [row[key] for row in rows[8:16]] == [row[key] for row in rows[16:]]
    assert len({row["prompt"] for row in rows}) == 8
    for row in rows:
        assert tuple(row) == COLUMNS
        assert 0 <= row["p_yes"] <= 1 and row["judge"] == ("yes" if row["p_yes"] >= 0.5 else "no")
        assert row["external"] in ("right", "wrong")
        with Image.open(io.BytesIO(pictures[row["image"]["sha256"]])) as image:
            assert image.size == (row["image"]["width"], row["image"]["height"])
    assert [path.name for path in sorted((offline / "runs/c_sft/drawings").iterdir())] == [
        f"epoch-{epoch:04d}.png" for epoch in range(3)
    ]

    # the group, the growth of the pool, and the artifacts
    pool = Pool.open("runs/c_sft/pool")
    assert all(found in log for found in (b"CurriculumStage", b"pool/accepted", b"pool/pool_rows"))
    assert f"sha256-{str(pool.state()['sha256'])[:12]}".encode() in log
    assert all(f"round-{number:05d}/candidates.parquet".encode() in log for number in pool.rounds)
    assert b"adapter_model.safetensors" in log

    # the config among its files trains the same again: watching has changed nothing
    again = ["--run", "again", "--trainer.callbacks", "null"]
    config = str(run / "files/unigap.yaml")
    assert main(["fit", "--config", config, *again, "--trainer.logger", "false"]) == 0
    ours, theirs = (state(Path(folder) / "checkpoints/last.ckpt") for folder in ("runs/c_sft", "again"))
    assert same(ours, theirs)


KILLS: dict[str, Point] = {
    "in the final measurement": (run_summary, "rejudge", lambda function: at_call(1, kill, function), {}),
    "in the upload": (Janus, "save", lambda function: at_call(1, kill, function), {}),
}


@pytest.mark.parametrize("point", KILLS)
def test_a_run_killed_at_its_end_still_uploads_its_artifacts(point: str, janus_folder: Path, offline: Path) -> None:
    flags = {**FICKLE, **SUMMARY, "summary.folder": "runs/sft", "trainer.max_epochs": 1}
    flags |= {"trainer.logger": "WandbLogger", "trainer.callbacks+": "unigap.callbacks.Artifacts"}
    with pytest.raises(Killed), armed(KILLS[point]):
        improve(janus_folder, "sft", flags)
    wandb.teardown()
    before = {*offline.rglob("offline-run-*/*.wandb")}
    trained = state(offline / "runs/sft/checkpoints/last.ckpt")
    assert improve(janus_folder, "sft", {**flags, "resume": "auto"}) == 0
    wandb.teardown()  # its service writes the log
    (log,) = {*offline.rglob("offline-run-*/*.wandb")} - before
    assert f"sha256-{str(Pool.open('runs/sft/pool').state()['sha256'])[:12]}".encode() in written(log)
    weights = [load(data) for data in staged(offline / "data") if data[8:9] == b"{"]
    trunk = {name.removeprefix("model.net."): tensor for name, tensor in trained.items()}
    assert trunk and any(same({name: tensors[name] for name in trunk}, trunk) for tensors in weights)


@pytest.mark.parametrize("given", [None, "mine"])
def test_a_group_that_is_given_is_kept(given: str | None, janus_folder: Path, offline: Path) -> None:
    groups: list[str] = []

    class Stop(Exception):
        """Ends the run before it trains."""

    @functools.wraps(wandb.init)  # the options of the logger are read off its signature
    def started(**options: Any) -> None:
        groups.append(options["group"])
        raise Stop

    flags = {"trainer.logger": "WandbLogger", "trainer.logger.group": given or "null"}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(wandb, "init", started)
        improve(janus_folder, "sft", flags)
    assert groups == [given or "SFTStage"]


def test_online_without_an_answer_goes_offline(
    janus_folder: Path, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    wandb.teardown()
    assert main(small(documented("WandbLogger"), janus_folder, {"trainer.max_epochs": 1})) == 0
    told = capsys.readouterr()
    assert "warning: no answer from W&B; the run is kept offline" in told.err
    assert "wandb sync runs/sft/wandb/offline-run-" in told.out


def test_a_run_in_tensorboard(janus_folder: Path, here: Path) -> None:
    assert main(small(documented("TensorBoardLogger"), janus_folder, GALLERY)) == 0
    events = EventAccumulator(str(here / "runs/sft/logs/version_0"))
    events.Reload()
    assert len(events.Images("gallery")) == 3
    (drawn,) = events.Scalars("pool/candidates")
    assert drawn.value == len(Pool.open("runs/sft/pool").candidates())
    assert len(events.Scalars("gap/generation/all")) == 2


def test_a_run_in_csv(janus_folder: Path, here: Path) -> None:
    assert improve(janus_folder, "c_sft", {**FICKLE, **GALLERY, "trainer.logger": "CSVLogger"}) == 0
    with (here / "runs/c_sft/logs/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [[float(row["train/loss"]) for row in rows if row["train/loss"] and row["epoch"] == e] for e in "01"]
    kept = [row["train_loss"] for row in json.loads(Path("runs/c_sft/curves.json").read_text())]
    assert kept == pytest.approx([sum(epoch) / len(epoch) for epoch in losses]) and max(map(len, losses)) > 1
    drawn = [int(float(row["pool/candidates"])) for row in rows if row["pool/candidates"]]
    pool = Pool.open("runs/c_sft/pool")
    assert drawn == [sum(candidate.round == number for candidate in pool.candidates()) for number in pool.rounds]
    with Image.open(here / "runs/c_sft/drawings/epoch-0002.png") as grid:
        assert grid.width > grid.height > 100


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    """Here, or in the tests of the exports, of ``push``, of trackio, of the comparison and the completion."""
    run = [documented(mark) for mark in ("TensorBoardLogger", "WandbLogger", "configs/wandb.yaml", "compare")]
    run += [documented("export", what) for what in ("pool", "model")]
    run += [documented("push", what) for what in ("pool", "model")]
    run += [documented("TrackioLogger"), documented("--print_completion")]
    assert commands() == sorted(run, key=commands().index)
