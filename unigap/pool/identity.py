"""``pool.json``: the file that makes a folder a pool, and names the model family of its drawings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigap.files.durable import (
    MANIFEST,
    Sealed,
    digest,
    is_temporary,
    make_folder,
    render_json,
    seal,
    unseal,
    write_durable,
)
from unigap.files.outputs import POOL_FILE
from unigap.files.writer_lock import WriterLock
from unigap.pool.head import write_first_head
from unigap.pool.layout import HEAD, REFERENCES
from unigap.pool.sidecar import Sidecar
from unigap.records import DrawingFormat

FORMAT, SHAPED = "unigap-pool-1", "unigap-pool-2"
"""Formats of pools of codes (M,), and of drawings of another type or shape, which ``pool.json`` then names."""


def write_empty_pool(folder: Path, model: str, format: DrawingFormat | None = None) -> None:
    """Write the files of an empty pool.

    Args:
        folder: A folder that is empty or does not exist.
        model: Fingerprint of the model family of the drawings.
        format: Type and shape of the drawings; None for codes, int32 (M,).

    Raises:
        ValueError: The folder is not empty, or is a file.
        OSError: The folder cannot be written.
    """
    _check_unused(folder)
    make_folder(folder)
    identity: dict[str, Any] = {"format": FORMAT, "model": model}
    if format:
        identity |= {"format": SHAPED, "drawing": {"dtype": format.dtype, "shape": list(format.shape)}}
    with WriterLock(folder):
        _check_unused(folder)  # another process may have created a pool before the lock was granted
        references_of(folder).create()
        write_first_head(folder, digest(render_json(identity).encode()))
        # the last file written makes the folder a pool; after an earlier kill, creation starts again
        write_durable(folder / POOL_FILE, seal(identity))


def read_identity(folder: Path) -> Sealed:
    """Read ``pool.json``, which holds ``format`` and ``model``.

    Raises:
        ValueError: The folder is not a pool, or ``pool.json`` is damaged or of another format.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no pool at {folder}: no such folder; check the path")
    if not (folder / POOL_FILE).exists():
        raise ValueError(f"{folder} is not a pool: it has no {POOL_FILE}; check the path")
    identity = unseal(folder / POOL_FILE)
    if identity.content.get("format") not in (FORMAT, SHAPED) or "model" not in identity.content:
        raise ValueError(
            f"{folder} is not a pool this version can read: its format is neither {FORMAT!r} nor {SHAPED!r}"
        )
    format_of(identity.content, folder / POOL_FILE)
    return identity


def format_of(identity: Mapping[str, Any], path: Path) -> DrawingFormat | None:
    """Return the type and shape of a pool's drawings; None for codes, int32 (M,).

    Args:
        identity: Content of ``pool.json``.
        path: The file, for messages.

    Raises:
        ValueError: They are missing or of an unknown kind.
    """
    if identity.get("format") == FORMAT:
        return None
    try:
        drawing = identity["drawing"]
        return DrawingFormat(drawing["dtype"], tuple(drawing["shape"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not tell the type and shape of the drawings: {error}; restore it") from None


def references_of(folder: Path) -> Sidecar:
    """Return the reference log-likelihoods of a pool, which exist from its creation."""
    return Sidecar(folder, REFERENCES, "reference", "logp", "models")


def _check_unused(folder: Path) -> None:
    """Check that a folder does not exist, or holds no more than a killed ``Pool.create`` leaves."""
    if not folder.exists() or (folder.is_dir() and _is_unused(folder)):
        return
    raise ValueError(f"cannot create a pool at {folder}: it is not an empty folder; open it or choose another")


def _is_unused(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir() if not is_temporary(path.name)}
    inside = {path.name for path in (folder / REFERENCES).glob("*") if not is_temporary(path.name)}
    return names <= {REFERENCES, HEAD} and inside <= {MANIFEST}
