"""``make soak``: random kills, changed settings, damage and input, until something is lost. It prints the seed."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
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
from kill_points import STAGES, Killed, at_call, differences, flags_of, kill, left_behind
from small_runs import CHECKPOINT, CONFIGS, POOL, SUMMARY, TRAINER, improve, words
from soak_damage import soak_damage
from tqdm import tqdm

from unigap.__main__ import main
from unigap.callbacks import run_checkpoint, run_summary
from unigap.files import durable
from unigap.judges import RandomJudge
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.pool.shards import RoundWriter
from unigap.stages import ImproveStage
from unigap.worlds.shapes.untrained.janus import make_model, make_processor

BEFORE: dict[str, tuple[Any, str]] = {
    "a training step": (ImproveStage, "training_step"),
    "the end of an epoch": (ImproveStage, "on_train_epoch_end"),
    "drawing": (Janus, "sample_images"),
    "judging": (RandomJudge, "logits"),
    "writing a shard": (RoundWriter, "write"),
    "committing a round": (RoundWriter, "commit"),
    "renaming a file": (durable.os, "replace"),  # type: ignore[attr-defined]
    "saving a checkpoint": (run_checkpoint, "rename_durable"),
    "a measurement": (run_summary, "measure"),
    "judging old drawings anew": (run_summary, "rejudge"),
    "writing the summary": (run_summary, "write_sealed"),
}
FIGURES = ("before", "after", "delta", "rounds", "by_category", "redrawn", "rejudged")
CHANGES: list[tuple[str, object]] = [
    # what decides the result
    ("model.init_args.lr", 2.0e-2),
    ("model.init_args.weight_decay", 0.3),
    ("model.init_args.objective.init_args.threshold", 0.6),
    ("model.init_args.model.init_args.lora_rank", 3),
    ("data.batch_size", 2),
    ("data.seed", 1),
    ("data.order", "easy_first"),
    ("regrow.plan.candidates", 3),
    ("regrow.plan.sampling.temperature", 0.7),
    ("trainer.accumulate_grad_batches", 2),
    # what decides nothing but speed and words
    ("data.eval_batch", 64),
    ("trainer.log_every_n_steps", 2),
    ("checkpoint.every_n_train_steps", 1),
]
"""Settings that a continued run is given."""


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


def measured(stage: str) -> dict[str, object]:
    """Flags of a run that is measured before and after."""
    return {**flags_of(stage), **SUMMARY, "summary.folder": f"runs/{stage}", "trainer.max_epochs": 3}


def run_until(checkpoint: Path, stage: str, flags: dict[str, object], name: str, call: int) -> None:
    """Continues a run until it comes to a place for the ``call``-th time, where it is killed, or to its end."""
    owner, attribute = BEFORE[name]
    with (
        contextlib.suppress(Killed),
        patch.object(owner, attribute, at_call(call, kill, getattr(owner, attribute))),
    ):
        assert improve(checkpoint, stage, {**flags, "resume": "auto"}) == 0, (name, call)


def outcome(stage: str) -> dict[str, Any]:
    """What a run leaves behind, with the figures it was measured by."""
    summary = json.loads((Path("runs") / stage / "summary.json").read_text())
    return left_behind(stage) | {"summary": {name: summary[name] for name in FIGURES}}


def soak_kills(checkpoint: Path, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kills every stage at random places, up to three times in a row; gives the number of runs and what was lost."""
    lost, total = [], 0
    for stage in STAGES:
        flags = {**measured(stage), "checkpoint.every_n_train_steps": rng.choice([0, 1, 2])}
        with in_new_folder():
            counts = count_calls(lambda stage=stage, flags=flags: improve(checkpoint, stage, flags))
            whole = outcome(stage)
        for _ in tqdm(range(kills), desc=stage, unit="run"):
            total += 1
            with in_new_folder():
                told = []
                for _ in range(rng.choice([1, 1, 2, 3])):
                    name = rng.choice(sorted(counts))
                    call = rng.randint(1, counts[name])
                    told.append(f"before {name} (call {call})")
                    run_until(checkpoint, stage, flags, name, call)
                assert improve(checkpoint, stage, {**flags, "resume": "auto"}) == 0, told
                summary = Path(f"runs/{stage}/summary.json")
                where = differences(outcome(stage), whole) if summary.exists() else [f"{summary} is missing"]
                if where:
                    lost.append(f"{stage}, killed {', then '.join(told)}: {where[:3]}")
    return total, lost


def soak_settings(checkpoint: Path, tries: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kills runs and continues them with another setting, which is refused in one line or changes nothing."""
    wrong = []
    stage = "c_sft"
    flags = measured(stage)
    with in_new_folder():
        counts = count_calls(lambda: improve(checkpoint, stage, flags))
        whole = outcome(stage)
    for _ in tqdm(range(tries), desc="changed settings", unit="run"):
        option, value = rng.choice(CHANGES)
        with in_new_folder():
            name = rng.choice(sorted(counts))
            run_until(checkpoint, stage, flags, name, rng.randint(1, counts[name]))
            told = f"killed before {name}, continued with --{option} {value}"
            begun = Path(f"runs/{stage}/checkpoints/last.ckpt").exists()
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors):
                status = improve(checkpoint, stage, {**flags, option: value, "resume": "auto"})
            lines = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
            if status == 2 and len(lines) == 1 and option.rpartition(".")[2] in lines[0]:
                status = improve(checkpoint, stage, {**flags, "resume": "auto"})
            # before its first checkpoint a run has no setting yet that could be kept
            if begun and (
                status or not Path(f"runs/{stage}/summary.json").exists() or differences(outcome(stage), whole)
            ):
                wrong.append(f"{told}: status {status}, {lines}")
    return tries, wrong


def soak_run_folder(checkpoint: Path, damages: int, rng: random.Random) -> tuple[int, list[str]]:
    """Damages every file of a run folder in turn."""
    with in_new_folder():
        stage = "dpo"
        assert improve(checkpoint, stage, {**measured(stage), "trainer.max_epochs": 1}) == 0
        pool = Pool.open(f"runs/{stage}/pool")
        pool.annotate("human", {candidate.id: 1.0 for candidate in pool.candidates()[:3]})
        return soak_damage(Path("runs") / stage, damages, rng)


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
    parser.add_argument("--settings", type=int, default=20, help="runs continued with another setting")
    parser.add_argument("--damages", type=int, default=1000)
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
        "changed settings neither refused nor without effect": soak_settings(folder, options.settings, rng),
        "damages that were not noticed": soak_run_folder(folder, options.damages, rng),
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
