"""The pool under damage: every changed byte, missing file and foreign round is caught and named."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_pools import PROMPTS, RECIPE, draw, files, fill, flip, grow

from unigap.__main__ import main
from unigap.files.durable import file_digest, seal, unseal
from unigap.pool import Pool
from unigap.pool.damage import find_damage
from unigap.pool.parquet import read_parquet
from unigap.pool.schemas import CANDIDATES


@pytest.fixture(autouse=True)
def patient_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the wait for the disk: nothing here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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
    whole, table = path.read_bytes(), read_parquet(path, CANDIDATES)
    data = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    caught = 0
    for position in range(4, data, 29):
        flip(path, position, 16)
        try:
            assert read_parquet(path, CANDIDATES).equals(table), position
        except ValueError:
            caught += 1
        path.write_bytes(whole)
    assert caught > 20


def test_missing_and_extra_files_are_named(folder: Path) -> None:
    for path in files(folder):
        if path.name == "head.json":  # as in a pool of an earlier version
            continue
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


# What is deleted or rolled back as a whole


def annotated(pool: Path) -> None:
    """Two additions of verdicts to a pool."""
    ids = [candidate.id for candidate in Pool.open(pool).candidates()]
    Pool.open(pool).annotate("human", {ids[0]: 1.0})
    shutil.copytree(pool / "annotations", pool.parent / "earlier")
    Pool.open(pool).annotate("human", {ids[1]: -1.0})


def roll_back(pool: Path) -> None:
    shutil.rmtree(pool / "annotations")
    (pool.parent / "earlier").rename(pool / "annotations")


def replace_by_a_file(pool: Path) -> None:
    shutil.rmtree(pool / "annotations")
    (pool / "annotations").write_text("")


def delete_rounds(*rounds: int) -> Callable[[Path], None]:
    def delete(pool: Path) -> None:
        for round in rounds:
            shutil.rmtree(pool / f"round-{round:05d}")

    return delete


def name_no_files(pool: Path) -> None:
    path = pool / "round-00001/manifest.json"
    path.write_bytes(seal(unseal(path).content | {"files": {}}))


def forget_references(pool: Path) -> None:
    (pool / "references/manifest.json").write_bytes(seal({"files": {}, "models": {}}))
    for table in (pool / "references").glob("*.parquet"):
        table.unlink()


LOSSES: dict[str, tuple[Callable[[Path], None], str, Callable[[Pool], object]]] = {
    "annotations rolled back": (roll_back, "annotations/manifest.json is older than head.json", Pool.judgments),
    "annotations deleted": (
        lambda pool: shutil.rmtree(pool / "annotations"), "annotations/manifest.json is older", Pool.judgments
    ),
    "annotations a file": (replace_by_a_file, "annotations is not a folder", Pool.judgments),
    "references forgotten": (forget_references, "references/manifest.json is older", lambda p: p.references("base")),
    "last round deleted": (delete_rounds(1), "round-00001 is missing: head.json names 2 rounds", Pool.candidates),
    "all rounds deleted": (delete_rounds(0, 1), "round-00000 is missing: head.json names 2", Pool.candidates),
    "manifest without files": (name_no_files, "manifest.json does not name the 4 files", Pool.candidates),
    "a round from nowhere": (
        lambda pool: (pool / "round-999999999").mkdir(),
        r"round-00002 to \S*round-999999998 is missing|round-00002 is missing",
        Pool.candidates,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_deleted_or_rolled_back_is_noticed(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lose, told, read = LOSSES[name]
    annotated(folder)
    assert main(["pool", "verify", str(folder)]) == 0
    lose(folder)
    capsys.readouterr()
    assert main(["pool", "verify", str(folder)]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error) and error.startswith("error: ") and error.count("\n") == 1
    with pytest.raises(ValueError, match=told):
        read(Pool.open(folder))


def test_writing_does_not_paper_over_a_loss(folder: Path) -> None:
    annotated(folder)
    sound = Pool.open(folder)
    roll_back(folder)
    one = sound.candidates()[0].id
    for write in (lambda: sound.annotate("human", {one: 1.0}), lambda: fill(sound, 2)):
        with pytest.raises(ValueError, match=r"older than head\.json"):
            write()
    assert [line for line in find_damage(folder) if "older than head.json" in line]


def test_a_pool_of_an_earlier_version_opens_and_gets_a_head_with_the_next_write(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = (folder / "head.json").read_bytes()
    (folder / "head.json").unlink()
    assert main(["pool", "verify", str(folder)]) == 0
    assert "it carries no head.json" in capsys.readouterr().out
    pool = Pool.open(folder)
    assert (pool.rounds, len(pool.references("base"))) == ((0, 1), 18)
    pool.add_references("base", {})
    assert (folder / "head.json").read_bytes() == head


# What would hang or fill memory


def lay_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def lay_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def lay_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize("lay", [lay_fifo, lay_device])
@pytest.mark.parametrize(
    "name", ["pool.json", "head.json", "references/manifest.json", "round-00001/judgments.parquet", "annotations"]
)
def test_fifos_and_devices_do_not_hang(
    name: str, lay: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay(folder / name)
    assert main(["pool", "verify", str(folder)]) == 2
    assert name in capsys.readouterr().err
    with pytest.raises(ValueError, match=name):
        pool = Pool.open(folder)
        _ = pool.judgments(), pool.references("base")


def test_a_json_file_without_end_is_not_read_into_memory(folder: Path) -> None:
    lay_large(folder / "round-00000/manifest.json")
    with pytest.raises(ValueError, match=r"round-00000/manifest.json is larger than 64 MiB"):
        Pool.open(folder).candidates()


def exchange(table: Path, rows: pa.Table) -> None:
    """Put another table into a round, and make the seals that whoever makes a pool can make."""
    pq.write_table(rows, table, compression="zstd", write_page_checksum=True)
    manifest = table.parent / "manifest.json"
    content = unseal(manifest).content
    content["files"][table.name] = file_digest(table)
    manifest.write_bytes(seal(content))
    (table.parents[1] / "head.json").unlink()


def repeated(rows: int, text: str = "x") -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), [text])
    return pa.table({"candidate_id": texts, "judge": texts, "logit": np.zeros(rows)})


BOMBS = {
    "many rows": (lambda: repeated(20_000_000), "promises 20,000,000 rows"),
    "one long text": (lambda: repeated(900_000, "x" * 2_000_000), "promises 3,600,000,000,000 bytes of text"),
    "other columns": (lambda: pa.table({"codes": [1]}), "has the columns 'codes'"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_table_that_unpacks_to_gigabytes_is_refused(name: str, folder: Path) -> None:
    make, told = BOMBS[name]
    table = folder / "round-00001/judgments.parquet"
    exchange(table, make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"judgments.parquet {told}"):
        Pool.open(folder).judgments()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


# Two writers


# a slow disk, so that unlocked writers would read the same manifest before either writes it
IMPORT = """
import sys, time
from unigap.pool import Pool
from unigap.pool import sidecar
write = sidecar.write_durable
sidecar.write_durable = lambda *file: (time.sleep(0.1), write(*file))
pool = Pool.open(sys.argv[1])
ids = [candidate.id for candidate in pool.candidates()]
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    pool.annotate(sys.argv[2], {ids[number]: 1.0})
"""


def test_writers_at_once_lose_nothing(folder: Path) -> None:
    names = ("ann", "ben", "cleo")
    count = 3
    started = [
        subprocess.Popen(
            [sys.executable, "-c", IMPORT, str(folder), name, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in names
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
    assert [process.returncode for process in started] == [0, 0, 0]
    assert [len(Pool.open(folder).judgments(name)) for name in names] == [count] * 3
    assert find_damage(folder) == []


HOLD = """
import sys
from unigap.pool import Pool
writer = Pool.open(sys.argv[1]).writer(2, {})
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_round_has_one_writing_run_and_its_name_is_told(folder: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        with pytest.raises(ValueError, match=f"round-00002.partial is being written by process {other.pid} on "):
            Pool.open(folder).writer(2, {})
        Pool.open(folder).writer(2, {}, lead=False)  # another process of the same run
        other.kill()
    Pool.open(folder).writer(2, {})
