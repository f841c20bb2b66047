"""Measure a synthetic pool: memory and time to seal rounds, open, select, redraw and read drawings.

Run ``python -m benchmarks.pool --candidates 1000000 --codes 576``; ``--json FILE`` also writes the figures. The pool is
measured at a quarter, a half and all of its size. Each phase runs in its own process, and its peak resident memory is
reported. Seconds are CPU seconds. The last line is the slope of the cost of a redraw against the size of the pool.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unigap.files.durable import digest, write_durable
from unigap.files.markdown import table
from unigap.loop.counts import count_round
from unigap.loop.members import distinct_members, stage_members
from unigap.loop.selection import select
from unigap.objectives import DPO, SFT
from unigap.pool import Pool
from unigap.pool.layout import round_folder
from unigap.pool.parquet import parquet_bytes
from unigap.pool.schemas import JUDGMENTS, SHARD
from unigap.records import Prompt

PER_PROMPT = 8
VOCABULARY = 16_384
SHARD_ROWS = 4096
RANKS = 8
BATCHES, BATCH = 100, 32


@dataclass(frozen=True)
class Size:
    """Size of a pool.

    Attributes:
        candidates: Candidates of the first rounds together.
        codes: Codes of a candidate.
        rounds: Rounds that share the candidates.
        fresh: Candidates of the round that is added later.
    """

    candidates: int
    codes: int
    rounds: int
    fresh: int

    @property
    def prompts(self) -> int:
        """Prompts of one of the first rounds; all rounds share them."""
        return max(1, self.candidates // self.rounds // PER_PROMPT)


def prompts_of(count: int) -> list[Prompt]:
    """Return prompts with texts of the usual length."""
    return [
        Prompt(f"prompt-{number:08d}", f"a photo of object {number} to the left of a small red lamp", "spatial", "hard")
        for number in range(count)
    ]


def draw_round(pool: Pool, number: int, prompts: Sequence[Prompt], codes: int) -> None:
    """Write shards of random codes and verdicts, and seal the round."""
    writer = pool.writer(number, {"seed": 0, "judges": [{"name": "self"}]})
    per_shard = max(1, min(SHARD_ROWS, 2**22 // codes) // PER_PROMPT)
    for start in range(0, len(prompts), per_shard):
        shard = random_shard(prompts[start : start + per_shard], number, start, codes)
        data = parquet_bytes(shard)
        name = f"shard-00000-{digest(data)}.parquet"
        write_durable(round_folder(pool.folder, number, ".partial") / name, data)
    writer.commit(prompts)


def random_shard(prompts: Sequence[Prompt], number: int, start: int, codes: int) -> pa.Table:
    """Return a shard, made column by column."""
    rng = np.random.default_rng((number, start))
    rows = len(prompts) * PER_PROMPT
    owners = np.repeat(np.arange(len(prompts)), PER_PROMPT)
    fields = {"prompt_id": "id"}
    columns: dict[str, Any] = {
        name: pa.array([getattr(prompt, fields.get(name, name)) for prompt in prompts], pa.string()).take(owners)
        for name in SHARD.names[:6]
    }
    index = np.tile(np.arange(PER_PROMPT), len(prompts))
    ids = [f"{prompts[owner].id}@{number}.{i}" for owner, i in zip(owners.tolist(), index.tolist(), strict=True)]
    verdicts = [ids, ["self"] * rows, rng.normal(size=rows), np.ones(rows, np.float32)]
    structs = pa.StructArray.from_arrays(
        [pa.array(column, field.type) for column, field in zip(verdicts, JUDGMENTS, strict=True)], fields=[*JUDGMENTS]
    )
    columns |= {
        "round": np.full(rows, number),
        "index": index,
        "seed": rng.integers(0, 2**62, rows),
        "codes": pa.ListArray.from_arrays(
            np.arange(rows + 1, dtype=np.int32) * codes, rng.integers(0, VOCABULARY, rows * codes, dtype=np.int32)
        ),
        "logp": -rng.gamma(20.0, size=rows),
        "judgments": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), structs),
    }
    return pa.table(columns, schema=SHARD)


def seal(folder: Path, size: Size) -> dict[str, float]:
    """Draw the first rounds."""
    pool, prompts = Pool.create(folder, "synthetic"), prompts_of(size.prompts)
    began = time.process_time()
    for number in range(size.rounds):
        draw_round(pool, number, prompts, size.codes)
    return {"draw and seal, s": time.process_time() - began}


def redraw(folder: Path, size: Size) -> dict[str, float]:
    """Open the pool, select from it, add a round, select again and count, as a curriculum does."""
    clock = Clock()
    pool = clock("open, s", lambda: Pool.open(folder))
    prompts = prompts_of(size.prompts)
    last = len(pool.rounds) - 1
    before = clock("read and check all, s", lambda: select(pool, "self", 0.5, last))
    rows = clock("SFT rows, s", lambda: SFT().rows(before.candidates, before.logits))
    clock("count, s", lambda: count_round(pool, before, {}, prompts, len(rows), last))
    draw_round(pool, last + 1, prompts[: size.fresh // PER_PROMPT], size.codes)

    def again() -> int:
        after = select(pool, "self", 0.5, last + 1)
        rows = len(SFT().rows(after.candidates, after.logits))
        count_round(pool, after, {}, prompts, rows, last + 1)
        return rows

    clock("redraw: select, rows, count, s", again)
    return clock.seconds


def train(folder: Path, size: Size) -> dict[str, float]:
    """Read batches of preference pairs in random order, as one of several ranks does in an epoch."""
    clock, pool = Clock(), Pool.open(folder)
    selection = select(pool, "self", 0.5, len(pool.rounds) - 1)
    objective = DPO()
    rows = clock("DPO pairs, s", lambda: objective.rows(selection.candidates, selection.logits))
    clock("distinct members, s", lambda: len(distinct_members(rows, objective.members)))
    mine = np.random.default_rng(0).permutation(len(rows))[::RANKS]
    clock(f"stage 1/{RANKS} of an epoch, s", lambda: stage_members(rows, mine, objective.members))
    batches = [mine[start : start + BATCH] for start in range(0, BATCH * BATCHES, BATCH)]
    read = clock("", lambda: sum(rows[int(i)].chosen.drawing.size for batch in batches for i in batch))
    assert read == size.codes * sum(map(len, batches))
    clock.seconds["read a pair's image, us"] = 1e6 * clock.seconds.pop("") / sum(map(len, batches))
    return clock.seconds


class Clock:
    """CPU seconds of each call by name: a shared machine does not change them much."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, act: Callable[[], Any]) -> Any:
        """Run a function and note its seconds."""
        began = time.process_time()
        result = act()
        self.seconds[name] = time.process_time() - began
        return result


def apart(phase: Callable[[Path, Size], dict[str, float]], folder: Path, size: Size) -> dict[str, float]:
    """Run a phase in a new process; add its largest memory."""
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        seconds, peak = processes.apply(_measured, (phase, folder, size))
    return {**seconds, f"{phase.__name__}: peak, MB": peak}


def _measured(phase: Callable[[Path, Size], dict[str, float]], folder: Path, size: Size) -> tuple[Any, float]:
    return phase(folder, size), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--codes", type=int, default=576)
    parser.add_argument("--rounds", type=int, default=4, help="rounds that share the candidates")
    parser.add_argument("--fresh", type=int, default=16_000, help="candidates of the round added later")
    parser.add_argument("--parts", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="sizes to measure")
    parser.add_argument("--folder", help="where the pools are written, one at a time; default: the temporary folder")
    parser.add_argument("--json")
    options = parser.parse_args()
    found: dict[int, dict[str, float]] = {}
    for part in options.parts:
        size = Size(int(part * options.candidates), options.codes, options.rounds, options.fresh)
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            folder = Path(scratch) / "pool"
            found[size.candidates] = {
                **apart(seal, folder, size),
                **apart(redraw, folder, size),
                **apart(train, folder, size),
                "disk, MB": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
            }
        print(size.candidates, {name: round(value, 3) for name, value in found[size.candidates].items()}, flush=True)
    names = list(next(iter(found.values())))
    print(
        table(("", *(f"{count:,}" for count in found)), [(n, *(f"{f[n]:.3f}" for f in found.values())) for n in names])
    )
    if len(found) > 1:
        name = "redraw: select, rows, count, s"
        slope, base = np.polyfit([*found], [figures[name] for figures in found.values()], 1)
        at = 10_000_000
        print(f"{name} = {base:.3f} + {1e9 * slope:.0f} ns x candidates; at {at:,}: {base + slope * at:.2f} s")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
