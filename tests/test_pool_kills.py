"""The pool under kills, full disks and read-only folders: nothing lost, nothing half read."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_pools import PROMPTS, RECIPE, committed, draw, fill, grow, rows, tree

from unigap.files.durable import LOCK, is_temporary
from unigap.pool import Pool
from unigap.pool.damage import find_damage


@pytest.fixture(autouse=True)
def patient_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the wait for the disk: a test can kill a process, it cannot cut the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool with two rounds and references."""
    grow(tmp_path / "pool")
    return tmp_path / "pool"


class Killed(BaseException):
    """Stands for kill -9: no handler of an Exception sees it."""


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, k: int, error: Callable[[], BaseException], after: bool = False
) -> Iterator[list[str]]:
    """Make the k-th call of os.replace or os.fsync raise, before or after it has done its work."""
    calls: list[str] = []

    def fail(name: str) -> Callable[..., None]:
        real = getattr(os, name)

        def call(*args: Any) -> None:
            calls.append(name)
            if len(calls) == k + 1 and not after:
                raise error()
            real(*args)
            if len(calls) == k + 1:
                raise error()

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail("replace"))
        patch.setattr(os, "fsync", fail("fsync"))
        yield calls


def count_write_points(monkeypatch: pytest.MonkeyPatch, folder: Path) -> int:
    """How often a growing pool calls os.replace and os.fsync."""
    with failing(monkeypatch, -1, Killed) as calls:
        grow(folder)
    return len(calls)


def test_killed_at_every_write_point_then_continued_is_the_same_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    points = count_write_points(monkeypatch, tmp_path / "counted")
    assert points > 60
    for k in range(points):
        folder = tmp_path / str(k)
        with pytest.raises(Killed), failing(monkeypatch, k, Killed, after=k % 2 == 0):
            grow(folder)
        if (folder / "pool.json").exists():
            pool = Pool.open(folder)
            assert pool.verify() == []
            assert {candidate.round for candidate in pool.candidates()} == set(pool.rounds)
        grow(folder)
        assert committed(folder) == expected, f"killed at write point {k}"


def test_every_rename_waits_for_the_disk_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, int]] = []
    really_replace = os.replace

    def note_replace(old: Path, new: Path) -> None:
        events.append(("rename", Path(old).stat().st_ino))
        really_replace(old, new)
        events.append(("renamed in", Path(new).parent.stat().st_ino))

    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(("fsync", os.fstat(descriptor).st_ino)))
    grow(tmp_path / "pool")
    renames = [position for position, (what, _) in enumerate(events) if what == "rename"]
    assert len(renames) > 20
    for position in renames:
        assert ("fsync", events[position][1]) in events[:position]
        assert events[position + 2] == ("fsync", events[position + 1][1])


def test_what_a_kill_leaves_goes_with_the_next_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool.open(folder)
    renames: list[Path] = []
    really_replace = os.replace

    def replace_and_die(old: Path, new: Path) -> None:
        really_replace(old, new)
        renames.append(new)
        if Path(new).is_dir():
            raise Killed

    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_and_die)
        fill(pool, 2)
    assert Path(renames[-1]).name == "round-00002"
    assert (folder / "round-00002.partial").is_dir()
    assert (pool.rounds, pool.verify()) == ((0, 1, 2), [])
    fill(pool, 3)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "references",
        *(f"round-{round:05d}" for round in range(4)),
    ]


def test_a_killed_round_continues_from_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    writer = pool.writer(0, RECIPE)
    for prompt in PROMPTS[:2]:
        writer.write(draw(prompt, 0), [])
    with pytest.raises(Killed), failing(monkeypatch, 0, Killed):
        writer.write(draw(PROMPTS[2], 0), [])
    assert Pool.open(pool.folder).rounds == ()
    assert Pool.open(pool.folder).candidates() == []
    again = Pool.open(pool.folder).writer(0, RECIPE)
    assert again.done() == {(prompt.id, index) for prompt in PROMPTS[:2] for index in range(3)}
    with pytest.raises(ValueError, match="already in a shard"):
        again.write(draw(PROMPTS[0], 0), [])


def test_a_partial_round_with_another_recipe_is_refused_and_kept(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", "family")
    pool.writer(0, RECIPE).write(draw(PROMPTS[0], 0), [])
    before = tree(pool.folder)
    warmer = {**RECIPE, "sampling": {"temperature": 1.5, "guidance": 5.0}}
    with pytest.raises(ValueError, match=r"'sampling.temperature' was 1.0 and is now 1.5.*round-00000.partial"):
        pool.writer(0, warmer)
    with pytest.raises(ValueError, match="'top_k' is new"):
        pool.writer(0, {**RECIPE, "top_k": 5})
    assert tree(pool.folder) == before
    with pytest.raises(ValueError, match="recipe key 'judge' cannot be stored"):
        pool.writer(0, {"judge": object()})


def test_a_newer_partial_round_is_ignored_and_kept(folder: Path) -> None:
    pool = Pool.open(folder)
    before = rows(pool.candidates())
    pool.writer(2, RECIPE).write(draw(PROMPTS[0], 2), [])
    pool = Pool.open(folder)
    assert pool.rounds == (0, 1)
    assert rows(pool.candidates()) == before
    assert pool.verify() == []
    assert (folder / "round-00002.partial").is_dir()


# Disks


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "whole")
    expected = tree(tmp_path / "whole")

    def full() -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for k in range(0, count_write_points(monkeypatch, tmp_path / "counted"), 5):
        folder = tmp_path / str(k)
        refusal = pytest.raises(OSError, match=r"cannot write .*No space left on device.*free some space")
        with refusal as caught, failing(monkeypatch, k, full):
            grow(folder)
        assert caught.value.errno == errno.ENOSPC
        assert "\n" not in str(caught.value)
        if (folder / "pool.json").exists():
            assert find_damage(folder) == []
        grow(folder)
        assert committed(folder) == expected
        assert not [path for path in folder.rglob("*") if is_temporary(path.name) and path.name != LOCK]


def test_a_read_only_folder_reads_but_does_not_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop a superuser, so the refusal of a read-only file system is played.
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    writer = Pool.open(folder).writer(2, RECIPE)
    before = tree(folder)
    really_open = pathlib.Path.open
    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    monkeypatch.setattr(
        pathlib.Path, "open", lambda path, mode="r", *args: refuse() if "w" in mode else really_open(path, mode, *args)
    )
    pool = Pool.open(folder)
    assert len(pool.candidates()) == 18
    writes: list[Callable[[], object]] = [
        lambda: pool.writer(2, RECIPE),
        lambda: writer.write(draw(PROMPTS[0], 2), []),
        lambda: writer.commit(PROMPTS),
        lambda: pool.add_references("new", {"a@0.0": 1.0}),
        lambda: Pool.create(folder.parent / "new", "family"),
    ]
    for write in writes:
        with pytest.raises(OSError, match=r"cannot write .*Read-only file system.*make the folder writable"):
            write()
    assert tree(folder) == before
