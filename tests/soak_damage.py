"""Random damage to every file of a run folder that a later command reads, and what these commands say of it."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from kill_points import differences
from tqdm import tqdm

from unigap.cli.commands.pool_verify import pool_verify
from unigap.files.journal import read_journal
from unigap.models.files.lightning_checkpoint import open_lightning
from unigap.pool import Pool
from unigap.pool.layout import HEAD
from unigap.report.pages.report import write_report
from unigap.report.run_folder.fit_folder import CONFIG, read_config, read_fit

UNREAD = ("version_*", "report.html", ".lock")
"""Logs for other programs, the page itself and locks: nothing reads them again."""


def files_read_later(run: Path) -> list[Path]:
    """Every file of a run folder that a later command reads."""
    every = sorted(path for path in run.rglob("*") if path.is_file())
    return [path for path in every if not any(part.match(name) for part in _parts(path, run) for name in UNREAD)]


def _parts(path: Path, run: Path) -> list[Path]:
    return [Path(part) for part in path.relative_to(run).parts]


def words_about(run: Path) -> str:
    """Everything that is said of a run folder when it is verified, reported, exported and continued."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in _readers(run):
            try:
                read()
            except (ValueError, OSError) as error:
                print(error)
    return said.getvalue()


def _readers(run: Path) -> list[Callable[[], object]]:
    pool, last = run / "pool", run / "checkpoints/last.ckpt"
    return [
        lambda: pool_verify(str(pool)),
        lambda: _read_pool(Pool.open(pool)),
        lambda: write_report(run, run / "report.html"),
        lambda: read_fit(run).estimates,
        lambda: read_config(run / CONFIG),
        lambda: open_lightning(str(last), "run"),
        lambda: _read_rows(run),
    ]


def _read_pool(pool: Pool) -> None:
    _ = pool.candidates(), pool.judgments(), pool.prompts(), pool.references("base"), pool.state()


def _read_rows(run: Path) -> None:
    journal = read_journal(run / "rows.jsonl", ("epoch", "rows"))
    epochs = [record["epoch"] for record in journal.records]
    if journal.torn or epochs != list(range(len(read_fit(run).epochs))):
        print(f"{run / 'rows.jsonl'}: lines are gone")


def flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randint(1, 255)]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def soak_damage(run: Path, count: int, rng: random.Random) -> tuple[int, list[str]]:
    """Flips bytes of a run folder's files, cuts files off and deletes them; gives how often and what went unnoticed."""
    missed, files = [], files_read_later(run)
    sound = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    before = words_about(run)
    assert "damaged" not in before and "missing" not in before, before
    for _ in tqdm(range(count), desc="damage", unit="file"):
        path, kind = rng.choice(files), rng.choice(["flip", "flip", "flip", "cut", "delete"])
        whole = path.read_bytes()
        path.unlink()
        if kind != "delete":
            path.write_bytes({"flip": flip, "cut": cut}[kind](whole, rng))
        told = words_about(run)
        # a seal or a head that is gone is told of the files that carry none
        known = path.name in told or (kind == "delete" and ("carries no seal" in told or f"no {HEAD}" in told))
        if not known and not (path.suffix == ".ckpt" and _same(path, sound)):
            missed.append(f"{kind} of {path}: {told}")
        path.write_bytes(whole)
    return count, missed


def _same(checkpoint: Path, sound: object) -> bool:
    """Whether a changed byte of a checkpoint belongs to none of its values: times and padding of the zip file."""
    return not differences(torch.load(checkpoint, weights_only=True), sound)
