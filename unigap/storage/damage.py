"""Finding what is damaged, missing or out of place in a pool, by reading every byte of it."""

from __future__ import annotations

from pathlib import Path

from unigap.storage.chain import chain_fault
from unigap.storage.manifest import MANIFEST, Sealed, altered_files, is_temporary, unseal
from unigap.storage.shards import ANNOTATIONS, POOL_FILE, RECIPE, REFERENCES, find_rounds, round_folder, shard_damage
from unigap.storage.sidecar import is_begun


def find_damage(pool: str | Path) -> list[str]:
    """Read every byte of a pool, even of one too damaged to open.

    Args:
        pool: Folder of the pool.

    Returns:
        One line for each file that is damaged, missing or does not belong there; empty if the pool is sound. What
        killed writes left behind is no damage.
    """
    pool = Path(pool)
    if not pool.is_dir():
        return [f"{pool} is missing"]
    committed, partial = find_rounds(pool), find_rounds(pool, ".partial")
    lines: list[str] = []
    previous = _unseal(pool / POOL_FILE, lines)
    for round in range(max(committed, default=-1) + 1):
        previous = _inspect_round(pool, round, previous, lines)
    for round in sorted({*partial} - {*committed}):
        lines += _partial_damage(round_folder(pool, round, ".partial"))
    lines += _sidecar_damage(pool / REFERENCES)
    if is_begun(pool / ANNOTATIONS):  # with the first annotation
        lines += _sidecar_damage(pool / ANNOTATIONS)
    known = {POOL_FILE, REFERENCES, ANNOTATIONS}
    for stage in ("", ".partial", ".sealing"):
        known |= {round_folder(pool, round, stage).name for round in find_rounds(pool, stage)}
    return lines + [line for path, line in _strangers(pool, known) if not is_temporary(path.name)]


def _inspect_round(pool: Path, round: int, previous: Sealed | None, lines: list[str]) -> Sealed | None:
    """Add what is wrong with a committed round to ``lines``; returns its manifest if that can be read."""
    folder = round_folder(pool, round)
    if not folder.is_dir():
        lines.append(f"{folder} is missing")
        return None
    manifest = _unseal(folder / MANIFEST, lines)
    if manifest is None:
        return None
    digests = manifest.content["files"]
    lines += altered_files(folder, digests)
    lines += [line for _, line in _strangers(folder, {MANIFEST, *digests})]
    fault = chain_fault(pool, round, manifest, previous.sha256) if previous else None
    lines += [fault] if fault else []
    return manifest


def _partial_damage(folder: Path) -> list[str]:
    """What would keep a partial round from being continued; one killed before its recipe was written is fine."""
    lines: list[str] = []
    shards = sorted(folder.glob("shard-*.parquet"))
    if shards or (folder / RECIPE).exists():
        _unseal(folder / RECIPE, lines)
    return lines + [damage for damage in map(shard_damage, shards) if damage]


def _sidecar_damage(folder: Path) -> list[str]:
    lines: list[str] = []
    index = _unseal(folder / MANIFEST, lines)
    if index is None:
        return lines
    lines += altered_files(folder, index.content["files"])
    for path, line in _strangers(folder, {MANIFEST, *index.content["files"]}):
        # A table that is whole but not in the manifest was written just before a kill: nobody has been promised it.
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


def _strangers(folder: Path, known: set[str]) -> list[tuple[Path, str]]:
    paths = sorted(path for path in folder.iterdir() if path.name not in known)
    return [(path, f"{path} does not belong to the pool") for path in paths]
