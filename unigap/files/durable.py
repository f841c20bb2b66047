"""Durable writes, sealed JSON and sha256 manifests.

A sealed JSON file holds ``content`` and the sha256 of ``content``. A manifest is a sealed file that lists the sha256 of
other files.
"""

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
from typing import Any, BinaryIO

from unigap.files.plain import open_plain, read_plain

MANIFEST, LOCK = "manifest.json", ".lock"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "a file and a folder cannot share a name, move one"),
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: "see to the disk",
}
"""Remedy for a failed write, by errno."""


@dataclass(frozen=True)
class Sealed:
    """Content of a sealed JSON file, after the check of its digest.

    Attributes:
        content: The JSON object.
        sha256: Digest of ``content``, as stored in the file.
    """

    content: dict[str, Any]
    sha256: str


def digest(data: bytes) -> str:
    """Return the sha256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a regular file in hexadecimal, read in blocks."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Replace the message of an OSError in the body by one line that says what is safe and what to do."""
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
    """Flush the file names in ``folder`` to disk: a rename alone survives a killed process but not a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents durably, if it does not exist.

    Raises:
        OSError: It cannot be created; the message says what to do.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)


def rename_durable(old: Path, new: Path) -> None:
    """Rename a file or folder within its parent, durably and atomically.

    Raises:
        OSError: The rename failed and ``new`` is unchanged; the message says what to do.
    """
    with explain_write_errors(new):
        os.replace(old, new)
        fsync_folder(new.parent)


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it replaces ``path`` durably and atomically if the body ends without an error.

    Args:
        path: The file to replace.
        temporary: Where to write, in the same folder; removed after an error.
    """
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it replaces ``path`` durably and atomically when the body ends without an error.

    Raises:
        OSError: It cannot be written; ``path`` is unchanged and the message says what to do.
    """
    # the random part keeps ranks that write the same name from renaming each other's file
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with explain_write_errors(path), replacing(path, temporary) as file:
        yield file


def write_durable(path: Path, data: bytes) -> None:
    """Write a file durably and atomically: ``path`` holds all of ``data`` or its previous content.

    Raises:
        OSError: It cannot be written; ``path`` is unchanged and the message says what to do.
    """
    with durable_file(path) as file:
        file.write(data)


def check_empty_folder(path: Path) -> None:
    """Check that ``path`` is an empty folder or does not exist.

    Raises:
        ValueError: It is a symbolic link, a file, or a folder that is not empty.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link; give a folder that is empty or does not exist yet")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} is not empty; give a folder that is empty or does not exist yet")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it is renamed to ``path`` when the body ends without an error.

    Raises:
        ValueError: ``path`` is not empty, see `check_empty_folder`.
        OSError: It cannot be written.
    """
    check_empty_folder(path)
    target = path.absolute()
    # a random name: a folder of a fixed name could be the user's
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    make_folder(aside / target.name)  # with its final name, which files written into it may mention
    try:
        yield aside / target.name
        rename_durable(aside / target.name, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether ``name`` is a writer's lock, or the temporary file of a killed durable write."""
    return name == LOCK or (name.startswith(".") and name.endswith(".tmp"))


def render_json(content: Any) -> str:
    """Return canonical JSON: sorted keys, ASCII only, no NaN.

    Raises:
        TypeError, ValueError: ``content`` is not plain JSON.
    """
    return json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False, indent=1)


def seal(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a sealed JSON file."""
    sealed = {"content": dict(content), "sha256": digest(render_json(dict(content)).encode())}
    return (render_json(sealed) + "\n").encode()


def unseal(path: Path) -> Sealed:
    """Read a sealed JSON file and check every byte.

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
        # seal again instead of comparing digests: this also detects changed whitespace and key order
        intact = seal(content) == raw
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise ValueError(f"{path} is damaged: it does not match the sha256 it carries")
    return Sealed(content, digest(render_json(content).encode()))


def altered_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Compare the files of ``folder`` with their manifest.

    Args:
        folder: Folder of the files.
        digests: sha256 by file name, from the manifest.

    Returns:
        One line for each file that is missing, unreadable or altered; empty if there is none.
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
