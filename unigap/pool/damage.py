"""Find damaged, missing and foreign files in a pool by reading every byte."""

from __future__ import annotations

from pathlib import Path

from unigap.files.durable import MANIFEST, Sealed, altered_files, is_temporary, unseal
from unigap.files.outputs import POOL_FILE
from unigap.pool.chain import chain_fault
from unigap.pool.head import Head, exchanged_round, lost_rounds, lost_tables, read_head
from unigap.pool.identity import format_of
from unigap.pool.layout import ANNOTATIONS, HEAD, RECIPE, REFERENCES, find_rounds, is_begun, round_folder
from unigap.pool.shards import shard_damage
from unigap.pool.sidecar import index_faults
from unigap.records import DrawingFormat


def find_damage(pool: str | Path) -> list[str]:
    """Read every byte of a pool, even of a pool that is too damaged to open.

    Args:
        pool: Folder of the pool.

    Returns:
        One line for each damaged, missing or foreign file; empty if the pool is sound. Files that a killed write left
        are no damage.
    """
    pool = Path(pool)
    if not pool.is_dir():
        return [f"{pool} is missing"]
    lines: list[str] = []
    head = _head(pool, lines)  # first: another process may be adding rounds, but never removes what the head lists
    committed, partial = find_rounds(pool), find_rounds(pool, ".partial")
    sealed = {-1: _unseal(pool / POOL_FILE, lines)}
    format = _format(pool, sealed[-1], lines)
    lines += _missing_rounds(pool, committed, head)
    for round in committed:
        sealed[round] = _inspect_round(pool, round, sealed.get(round - 1), format, lines)
    last = sealed.get(head.rounds - 1) if head else None
    lines += exchanged_round(pool, head, last.sha256) if head and last else []
    for round in sorted({*partial} - {*committed}):
        lines += _partial_damage(round_folder(pool, round, ".partial"))
    for name, owners in ((REFERENCES, "models"), (ANNOTATIONS, "judges")):
        lines += _sidecar_damage(pool, name, owners, head)
    known = {POOL_FILE, HEAD, REFERENCES, ANNOTATIONS}
    for stage in ("", ".partial", ".sealing"):
        known |= {round_folder(pool, round, stage).name for round in find_rounds(pool, stage)}
    return lines + [line for path, line in _foreign(pool, known) if not is_temporary(path.name)]


def _head(pool: Path, lines: list[str]) -> Head | None:
    try:
        return read_head(pool)
    except ValueError as error:
        lines.append(str(error))
    except OSError as error:
        lines.append(f"{pool / HEAD} cannot be read: {error.strerror}")
    return None


def _format(pool: Path, identity: Sealed | None, lines: list[str]) -> DrawingFormat | None:
    try:
        return format_of(identity.content, pool / POOL_FILE) if identity else None
    except ValueError as error:
        lines.append(str(error))
    return None


def _missing_rounds(pool: Path, committed: list[int], head: Head | None) -> list[str]:
    """Return one line for each gap between the committed rounds, and one if the head lists more rounds."""
    lines, expected = [], 0
    for round in committed:
        if round > expected:
            through = f" to {round_folder(pool, round - 1)}" if round > expected + 1 else ""
            lines.append(f"{round_folder(pool, expected)}{through} is missing")
        expected = round + 1
    return lines + (lost_rounds(pool, head, expected) if head else [])


def _inspect_round(
    pool: Path, round: int, previous: Sealed | None, format: DrawingFormat | None, lines: list[str]
) -> Sealed | None:
    """Append the faults of a committed round to ``lines``; return its manifest, or None if it cannot be read."""
    folder = round_folder(pool, round)
    manifest = _unseal(folder / MANIFEST, lines)
    if manifest is None:
        return None
    fault = chain_fault(pool, round, manifest, previous.sha256 if previous else None, format)
    lines += [fault] if fault else []
    digests = manifest.content.get("files")
    if isinstance(digests, dict):
        lines += altered_files(folder, digests)
        lines += [line for _, line in _foreign(folder, {MANIFEST, *digests})]
    return manifest


def _partial_damage(folder: Path) -> list[str]:
    """Return the faults that keep a partial round from being continued; a missing recipe without shards is none."""
    lines: list[str] = []
    shards = sorted(folder.glob("shard-*.parquet"))
    if shards or (folder / RECIPE).exists():
        _unseal(folder / RECIPE, lines)
    latents = sorted(folder.glob("latents-*.npy"))
    return lines + [damage for damage in map(shard_damage, [*shards, *latents]) if damage]


def _sidecar_damage(pool: Path, name: str, owners: str, head: Head | None) -> list[str]:
    folder = pool / name
    lines: list[str] = []
    try:
        begun = is_begun(folder)
    except ValueError as error:
        return [str(error)]
    if not begun and name == ANNOTATIONS:  # created with the first annotation
        return lost_tables(pool, head, name, ()) if head else []
    index = _unseal(folder / MANIFEST, lines)
    if index is None:
        return lines
    faults = index_faults(folder, index.content, owners)
    if faults:
        return faults
    lines += lost_tables(pool, head, name, index.content["files"]) if head else []
    lines += altered_files(folder, index.content["files"])
    for path, line in _foreign(folder, {MANIFEST, *index.content["files"]}):
        # an intact table that is not in the manifest was written just before a kill; it never counted as stored
        if not is_temporary(path.name) and shard_damage(path):
            lines.append(line)
    return lines


def _unseal(path: Path, lines: list[str]) -> Sealed | None:
    try:
        return unseal(path)
    except ValueError as error:
        lines.append(str(error))
    except OSError as error:
        lines.append(f"{path} cannot be read: {error.strerror}")
    return None


def _foreign(folder: Path, known: set[str]) -> list[tuple[Path, str]]:
    paths = sorted(path for path in folder.iterdir() if path.name not in known)
    return [(path, f"{path} does not belong to the pool") for path in paths]
