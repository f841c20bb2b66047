"""Small pools for the tests: drawing, judging and growing them, and changing their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unigap.files.durable import is_temporary
from unigap.pool import Pool
from unigap.records import Candidate, Judgment, Prompt

RECIPE = {"seed": 7, "sampling": {"temperature": 1.0, "guidance": 5.0}, "template": "a drawing of {}"}
PROMPTS = [
    Prompt("../../etc/passwd", "a red circle", "color", "easy", "train", '{"n": 1}'),
    Prompt("b/c:*?\0\n", "two blue squares", "count", "hard", "train"),
    Prompt("ünïcode 🟥", "a green triangle"),
    Prompt("a@0.1", "an id that looks like a candidate's"),
]


def draw(prompt: Prompt, round: int, n: int = 3) -> list[Candidate]:
    """N candidates that depend on the prompt, the round and the index only, as a sampler's do."""
    candidates = []
    for index in range(n):
        seed = 1_000_003 * round + 101 * PROMPTS.index(prompt) + index
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 128, size=16, dtype=np.int32)
        candidates.append(Candidate(prompt, round, index, seed - 2**62, codes, -float(rng.gamma(20.0))))
    return candidates


def judge(candidates: Sequence[Candidate]) -> list[Judgment]:
    """Two judges' verdicts on each candidate."""
    return [Judgment(candidate.id, name, candidate.logp / 7) for candidate in candidates for name in ("self", "oracle")]


def fill(pool: Pool, round: int, prompts: Sequence[Prompt] = PROMPTS, world_size: int = 1) -> None:
    """Draw and commit one round, a prompt a shard, skipping the prompts that are done."""
    writers = [pool.writer(round, RECIPE) for _ in range(world_size)]
    for rank, writer in enumerate(writers):
        for prompt in prompts[rank::world_size]:
            if (prompt.id, 0) not in writer.done():
                candidates = draw(prompt, round)
                writer.write(candidates, judge(candidates), rank)
    writers[0].commit(prompts)


def grow(folder: Path, rounds: int = 2) -> None:
    """The life of a pool: created, two rounds drawn, references added; continues wherever it was left."""
    pool = Pool.open(folder) if (folder / "pool.json").exists() else Pool.create(folder, "family")
    for round in range(rounds):
        if round not in pool.rounds:
            fill(pool, round, PROMPTS[:2] if round == 0 else PROMPTS)
        pool.add_references("base", {candidate.id: candidate.logp - 1 for candidate in pool.candidates(round)})


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a pool with its bytes, but for temporary ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not is_temporary(path.name)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def committed(folder: Path) -> dict[str, bytes]:
    """Every file of a pool but for those in partial rounds; a kill after the commit leaves one until the next."""
    return {name: data for name, data in tree(folder).items() if ".partial" not in name}


def rows(candidates: Sequence[Candidate]) -> list[tuple[Any, ...]]:
    """Candidates with their codes in a form that compares."""
    return [(candidate, str(candidate.drawing.dtype), tuple(candidate.drawing.tolist())) for candidate in candidates]


def flip(path: Path, position: int, mask: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def files(folder: Path) -> list[Path]:
    """Every file of a pool, but for locks."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not is_temporary(path.name))
