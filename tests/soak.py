"""``make soak``: random kills, random byte flips and random input, until something is lost. It prints the seed."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kill_points import EXACT, STAGES, Killed, at_call, differences, kill, left_behind
from small_runs import CHECKPOINT, CONFIGS, POOL, TRAINER, improve, words
from tqdm import tqdm

from unigap.__main__ import main
from unigap.callbacks import run_checkpoint
from unigap.judges import RandomJudge
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.shapes.newborns.janus import make_model, make_processor
from unigap.stages import ImproveStage
from unigap.storage import manifest
from unigap.storage.shards import RoundWriter

BEFORE: dict[str, tuple[Any, str]] = {
    "a training step": (ImproveStage, "training_step"),
    "the end of an epoch": (ImproveStage, "on_train_epoch_end"),
    "drawing": (Janus, "sample_images"),
    "judging": (RandomJudge, "logits"),
    "writing a shard": (RoundWriter, "write"),
    "committing a round": (RoundWriter, "commit"),
    "renaming a file": (manifest.os, "replace"),  # type: ignore[attr-defined]
    "saving a checkpoint": (run_checkpoint, "rename_durable"),
}


@contextlib.contextmanager
def in_new_folder() -> Iterator[Path]:
    """A folder that is the working directory for a while."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def count_calls(run: Callable[[], int]) -> collections.Counter[str]:
    """How often a run comes to each place."""
    counts: collections.Counter[str] = collections.Counter()

    def counting(name: str, function: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*args, **options)

        return counted

    with contextlib.ExitStack() as stack:
        for name, (owner, attribute) in BEFORE.items():
            stack.enter_context(patch.object(owner, attribute, counting(name, getattr(owner, attribute))))
        assert run() == 0
    return counts


def soak_kills(checkpoint: Path, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kills every stage at random places, up to three times in a row; gives the number of runs and what was lost."""
    lost, total = [], 0
    for stage in STAGES:
        flags = {**EXACT, "checkpoint.every_n_train_steps": rng.choice([0, 1, 2])}
        with in_new_folder():
            counts = count_calls(lambda stage=stage, flags=flags: improve(checkpoint, stage, flags))
            whole = left_behind(stage)
        for _ in tqdm(range(kills), desc=stage, unit="run"):
            total += 1
            with in_new_folder():
                told = []
                for _ in range(rng.choice([1, 1, 2, 3])):
                    name = rng.choice(sorted(counts))
                    call = rng.randint(1, counts[name])
                    told.append(f"before {name} (call {call})")
                    owner, attribute = BEFORE[name]
                    with (
                        contextlib.suppress(Killed),
                        patch.object(owner, attribute, at_call(call, kill, getattr(owner, attribute))),
                    ):
                        assert improve(checkpoint, stage, {**flags, "resume": "auto"}) == 0, told
                assert improve(checkpoint, stage, {**flags, "resume": "auto"}) == 0, told
                where = differences(left_behind(stage), whole)
                if where:
                    lost.append(f"{stage}, killed {', then '.join(told)}: {where[:3]}")
    return total, lost


def soak_flips(checkpoint: Path, flips: int, rng: random.Random) -> tuple[int, list[str]]:
    """Flips single bytes all over a pool; gives how many and those that were not noticed."""
    missed = []
    with in_new_folder():
        assert improve(checkpoint, "dpo", {**EXACT, "trainer.max_epochs": 1}) == 0
        pool = Path("runs/dpo/pool")
        files = sorted(path for path in pool.rglob("*") if path.is_file())
        for _ in tqdm(range(flips), desc="byte flips", unit="flip"):
            path = rng.choice(files)
            sound = path.read_bytes()
            at, mask = rng.randrange(len(sound)), rng.randint(1, 255)
            path.write_bytes(sound[:at] + bytes([sound[at] ^ mask]) + sound[at + 1 :])
            try:
                found = Pool.open(pool).verify()
            except ValueError as error:
                found = [str(error)]
            if not any(path.name in line for line in found):
                missed.append(f"{path}, byte {at} ^ {mask}: {found}")
            path.write_bytes(sound)
    return flips, missed


def soak_input(checkpoint: Path, examples: int) -> tuple[int, list[str]]:
    """Feeds mutated prompt and config files to the command line; every answer is success or one line and status 2."""
    bad: list[str] = []
    tried = 0
    config = (CONFIGS / "sft.yaml").read_text().encode()
    prompts = b'{"id": "a", "text": "a red circle", "category": "color", "difficulty": "easy"}\n{"text": "two rings"}\n'
    piece = st.one_of(st.binary(max_size=12), st.sampled_from([b"\x00", b"{", b"]", b"&a", b"*a", b": ", b"- ", b"\n"]))

    def mutated(source: bytes, cuts: list[tuple[float, float, bytes]]) -> bytes:
        for start, length, new in cuts:
            at = int(start * len(source))
            source = source[:at] + new + source[at + int(length * 20) :]
        return source

    share = st.floats(0, 1)

    @settings(
        max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.booleans(), st.lists(st.tuples(share, share, piece), min_size=1, max_size=4))
    def feed(use_config: bool, cuts: list[tuple[float, float, bytes]]) -> None:
        nonlocal tried
        tried += 1
        small = {**TRAINER, **POOL, CHECKPOINT: checkpoint, "trainer.max_epochs": 0}
        with in_new_folder() as folder:
            if use_config:
                (folder / "run.yaml").write_bytes(mutated(config, cuts))
                command = words("fit", "sft", small)
                command[2] = str(folder / "run.yaml")
            else:
                (folder / "prompts.jsonl").write_bytes(mutated(prompts, cuts))
                command = [
                    "gap",
                    "--checkpoint",
                    str(checkpoint),
                    "--prompts",
                    str(folder / "prompts.jsonl"),
                    "--candidates",
                    "1",
                ]
            errors = io.StringIO()
            try:
                with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                    status = main(command)
            except BaseException as error:
                bad.append(f"{command[0]}: {type(error).__name__}: {error} for {cuts}")
                return
            lines = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
            if (status, len(lines)) not in ((0, 0), (2, 1)):
                bad.append(f"{command[0]}: status {status}, {lines} for {cuts}")

    feed()
    return tried, bad


def soak() -> int:
    """Runs everything; the exit status is 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kills", type=int, default=20, help="killed runs for each stage")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=200)
    options = parser.parse_args()
    print(f"seed {options.seed}: make soak SOAK='--seed {options.seed}' runs this again", flush=True)
    warnings.simplefilter("ignore")
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    processor = make_processor()
    make_model(processor, hidden_size=64, layers=2, vision_layers=1, n_codes=64).save_pretrained(folder)
    processor.save_pretrained(folder)
    parts = {
        "killed runs that did not end as the uninterrupted one": soak_kills(folder, options.kills, rng),
        "byte flips that were not noticed": soak_flips(folder, options.flips, rng),
        "inputs not answered by success or one line": soak_input(folder, options.examples),
    }
    shutil.rmtree(folder)
    for name, (tried, failures) in parts.items():
        print(f"{name}: {len(failures)} of {tried}")
        for failure in failures:
            print(f"  {failure}")
    return int(any(failures for _, failures in parts.values()))


if __name__ == "__main__":
    sys.exit(soak())
