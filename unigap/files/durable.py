"""Files that know when they are damaged: durable writes, sealed JSON and sha256 manifests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigap.files.plain import open_plain, read_plain

MANIFEST, LOCK = "manifest.json", ".lock"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "a file and a folder cannot share a name, move one"),
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: "see to the disk",
}
"""What to do when a file cannot be written, by errno."""


@dataclass(frozen=True)
class Sealed:
    """What a sealed JSON file holds, once its seal has been checked.

    Attributes:
        content: The JSON object inside.
        sha256: Digest of ``content``, the one the file carries.
    """

    content: dict[str, Any]
    sha256: str


def digest(data: bytes) -> str:
    """sha256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a regular file in hexadecimal, read in blocks."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one line that says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = REMEDIES.get(error.errno or 0, "see to it")
        raise OSError(
            error.errno,
            f"cannot write {path}: {reason}; everything written before it is safe: {remedy}, then run again",
        ) from error


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable; a rename alone survives a killed process but not a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create ``folder`` with its parents, durably; one that exists is fine.

    Raises:
        OSError: It cannot be created; the message says what to do.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)


def rename_durable(old: Path, new: Path) -> None:
    """Rename a file or folder within its parent, durably and all at once.

    Raises:
        OSError: The rename failed and ``new`` is as it was; the message says what to do.
    """
    with explain_write_errors(new):
        os.replace(old, new)
        fsync_folder(new.parent)


def write_durable(path: Path, data: bytes) -> None:
    """Write a file so that ``path`` holds either all of ``data``, on disk, or what it held before.

    Raises:
        OSError: It cannot be written; ``path`` is as it was and the message says what to do.
    """
    # The random part keeps ranks that write the same name from renaming each other's file away.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with explain_write_errors(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        rename_durable(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def check_empty_folder(path: Path) -> None:
    """Make sure that a folder may be made at ``path``: it is empty or does not exist yet.

    Raises:
        ValueError: There is something at ``path`` already.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link; give a folder that is empty or does not exist yet")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} is not empty; give a folder that is empty or does not exist yet")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which appears at ``path`` once the body is through, whole or not at all.

    Raises:
        ValueError: There is something at ``path`` already.
        OSError: It cannot be written.
    """
    check_empty_folder(path)
    place = path.absolute()
    # a name of its own: what lies beside it under a fixed one could be the user's
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    make_folder(aside / place.name)  # of its own name already, which what is written into it may state
    try:
        yield aside / place.name
        rename_durable(aside / place.name, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether ``name`` is a writer's lock, or was left by a durable write that was killed before its rename."""
    return name == LOCK or (name.startswith(".") and name.endswith(".tmp"))


def render_json(content: Any) -> str:
    """JSON in its one canonical form: sorted keys, ASCII only, no NaN.

    Raises:
        TypeError, ValueError: ``content`` is not plain JSON.
    """
    return json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False, indent=1)


def seal(content: Mapping[str, Any]) -> bytes:
    """A JSON file that carries the digest of its own content."""
    sealed = {"content": dict(content), "sha256": digest(render_json(dict(content)).encode())}
    return (render_json(sealed) + "\n").encode()


def unseal(path: Path) -> Sealed:
    """Read a sealed JSON file and check every byte of it.

    Raises:
        ValueError: The file is missing, damaged or no regular file.
        OSError: The file cannot be read.
    """
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    try:
        content = json.loads(raw)["content"]
        # Sealing again, rather than comparing digests, also catches bytes that JSON does not care about.
        intact = seal(content) == raw
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise ValueError(f"{path} is damaged: it does not match the sha256 it carries")
    return Sealed(content, digest(render_json(content).encode()))


def altered_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Compare the files of ``folder`` with their manifest.

    Args:
        folder: Where the files lie.
        digests: File name to sha256, as written in the manifest.

    Returns:
        One line for each file that is missing, unreadable or altered; empty if all are as they were written.
    """
    lines = []
    for name, expected in sorted(digests.items()):
        path = folder / name
        try:
            if file_digest(path) != expected:
                lines.append(f"{path} is damaged: its sha256 is not the one in {MANIFEST}")
        except FileNotFoundError:
            lines.append(f"{path} is missing")
        except OSError as error:
            lines.append(f"{path} cannot be read: {error.strerror}")
        except ValueError as error:
            lines.append(str(error))
    return lines
