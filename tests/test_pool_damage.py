"""The pool under damage: every changed byte, missing file and foreign round is caught and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_pools import PROMPTS, RECIPE, draw, files, fill, flip, grow

from unigap.pool import Pool
from unigap.storage.damage import find_damage
from unigap.storage.manifest import unseal
from unigap.storage.tables import read_parquet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool with two rounds and references."""
    grow(tmp_path / "pool")
    return tmp_path / "pool"


def test_every_byte_flip_is_caught_and_its_file_named(folder: Path) -> None:
    rng = np.random.default_rng(0)
    state = Pool.open(folder).state()
    flips = 0
    for path in files(folder):
        whole = path.read_bytes()
        for position in rng.choice(len(whole), size=16, replace=False):
            flip(path, position, int(rng.integers(1, 256)))
            assert [line for line in find_damage(folder) if line.startswith(str(path))], (path, position)
            if "references" not in path.parts:
                with pytest.raises(ValueError, match=path.name):
                    Pool.open(folder).check_state(state)
            path.write_bytes(whole)
            flips += 1
    assert flips >= 200
    assert find_damage(folder) == []


def test_every_byte_of_the_json_files_counts(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        whole = path.read_bytes()
        for position in range(len(whole)):
            flip(path, position, 1 << position % 8)
            with pytest.raises(ValueError, match="is damaged"):
                unseal(path)
            path.write_bytes(whole)


def test_readers_refuse_damaged_files(folder: Path) -> None:
    reads: dict[str, Callable[[Pool], object]] = {
        "round-00001/candidates.parquet": Pool.candidates,
        "round-00001/judgments.parquet": Pool.judgments,
        "round-00001/prompts.parquet": Pool.prompts,
        "round-00001/recipe.json": lambda pool: pool.recipe(1),
        "round-00000/manifest.json": Pool.state,
        "references/*.parquet": lambda pool: pool.references("base"),
        "references/manifest.json": lambda pool: pool.references("base"),
    }
    for pattern, read in reads.items():
        path = next(folder.glob(pattern))
        whole = path.read_bytes()
        flip(path, len(whole) // 2, 4)
        with pytest.raises(ValueError, match=path.name):
            read(Pool.open(folder))
        path.unlink()
        with pytest.raises(ValueError, match=f"{path.name} is missing"):
            read(Pool.open(folder))
        path.write_bytes(whole)
        read(Pool.open(folder))


def test_pages_carry_their_own_checksums(folder: Path) -> None:
    path = folder / "round-00001" / "candidates.parquet"
    whole, table = path.read_bytes(), read_parquet(path)
    data = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    caught = 0
    for position in range(4, data, 29):
        flip(path, position, 16)
        try:
            assert read_parquet(path).equals(table), position
        except ValueError:
            caught += 1
        path.write_bytes(whole)
    assert caught > 20


def test_missing_and_extra_files_are_named(folder: Path) -> None:
    for path in files(folder):
        whole = path.read_bytes()
        path.unlink()
        assert [line for line in find_damage(folder) if line == f"{path} is missing"]
        path.write_bytes(whole)
    for place in (folder, folder / "round-00000", folder / "references"):
        for name in ("notes.txt", "table.parquet"):
            extra = place / name
            extra.write_text("hello")
            assert find_damage(folder) == [f"{extra} does not belong to the pool"]
            extra.unlink()
    shutil.rmtree(folder / "references")
    assert find_damage(folder) == [f"{folder / 'references' / 'manifest.json'} is missing"]


def test_missing_and_foreign_rounds_are_named(folder: Path, tmp_path: Path) -> None:
    other = Pool.create(tmp_path / "other", "another family")
    fill(other, 0, PROMPTS[:2])
    away = tmp_path / "round-00000"
    (folder / "round-00000").rename(away)
    assert find_damage(folder) == [f"{folder / 'round-00000'} is missing"]
    with pytest.raises(ValueError, match="round-00000 is missing though round 1 is there"):
        Pool.open(folder).candidates()
    shutil.copytree(other.folder / "round-00000", folder / "round-00000")
    assert any("does not follow" in line for line in find_damage(folder))
    with pytest.raises(ValueError, match="does not follow"):
        Pool.open(folder).candidates()


def test_a_damaged_shard_is_named_and_can_be_deleted(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    writer = pool.writer(0, RECIPE)
    for prompt in PROMPTS[:2]:
        writer.write(draw(prompt, 0), [])
    shard = next(pool.folder.glob("round-00000.partial/shard-*.parquet"))
    flip(shard, 40, 1)
    assert [line for line in pool.verify() if str(shard) in line]
    with pytest.raises(ValueError, match=f"{shard.name}.*delete this file"):
        pool.writer(0, RECIPE)
    shard.unlink()
    fill(pool, 0)
    assert {candidate.prompt for candidate in pool.candidates()} == set(PROMPTS)
